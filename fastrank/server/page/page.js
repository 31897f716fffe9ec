// The page: ranks pasted documents with the models of this server, by its public API. Text is only ever set as text.
const $ = (id) => document.getElementById(id);
const FILMS = [
  "A chess computer refuses to play and asks to be left alone.",
  "Bees return to a valley that had forgotten them.",
  "A baker finds a body in the flour.",
  "Two robots learn to bluff at cards.",
  "A lighthouse keeper writes letters to ships that never answer.",
  "The last arcade in town fights to keep its doors open.",
];
const METHODS = { rerank: "cross-encoder", dense: "dense", late: "colbert", sparse: "bm25" };
const LABELS = { rerank: "cross-encoder", dense: "cosine of vectors", late: "late interaction", sparse: "words" };
const MOST_TEXTS = 40;
let models = [];

// -- the server -------------------------------------------------------------------------------------------------------

async function call(path, body) {
  const headers = { "Content-Type": "application/json" };
  if ($("key").value) headers.Authorization = `Bearer ${$("key").value}`;
  const begun = performance.now();
  let response;
  try {
    response = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) });
  } catch {
    throw new Error("The server does not answer.");
  }
  const answer = await response.json().catch(() => ({}));
  if (response.status === 401) document.querySelector(".field.key").hidden = false;
  if (!response.ok) throw new Error(answer.message || `The server answered ${response.status}.`);
  return { answer, headers: response.headers, ms: performance.now() - begun };
}

async function loadModels() {
  const { answer } = await call("info");
  models = answer.served_models;
  const options = models.map((model, index) => [String(index), `${LABELS[model.task]} · ${model.id.split("/").pop()}`]);
  fill($("first"), options);
  fill($("second"), [["", "nothing"], ...options]);
  fill($("dense"), models.flatMap((model, index) => (model.task === "dense" ? [[String(index), model.id]] : [])));
  const best = ["rerank", "late", "dense", "sparse"].map((task) => models.findIndex((model) => model.task === task));
  $("first").value = String(best.find((index) => index >= 0) ?? 0);
  $("tab-similar").disabled = $("dense").options.length === 0;
}

function fill(select, options) {
  select.replaceChildren(...options.map(([value, label]) => make("option", { value, textContent: label })));
}

// -- ranking ----------------------------------------------------------------------------------------------------------

async function rank(event) {
  event?.preventDefault();
  const query = $("query").value;
  const documents = lines($("documents").value);
  const wanted = [$("first").value, $("second").value].filter((value) => value !== "").map((value) => models[Number(value)]);
  await busy($("rank-form"), async () => {
    const results = [];
    for (const model of wanted) results.push(await ranked(model, query, documents));
    const first = results[0].entries && new Map(results[0].entries.map((entry, place) => [entry.index, place]));
    $("rankings").replaceChildren(...results.map((result, column) => rankingOf(result, documents, query, column ? first : null)));
  });
}

async function ranked(model, query, documents) {
  const body = { model: model.id, query, documents, method: METHODS[model.task], return_documents: false, return_tokens: true };
  try {
    const { answer, headers, ms } = await call("v1/rerank", body);
    return { model, body, entries: answer.results, headers, ms, tokens: answer.usage.total_tokens };
  } catch (error) {
    return { model, body, error };
  }
}

function rankingOf(result, documents, query, before) {
  const article = $("ranking").content.cloneNode(true).firstElementChild;
  article.querySelector("h2").textContent = `${result.model.id} · ${LABELS[result.model.task]}`;
  snippets(article, "v1/rerank", result.body);
  const figures = article.querySelector(".figures");
  if (result.error) {
    figures.replaceWith(make("p", { className: "problem", textContent: result.error.message, role: "alert" }));
    return article;
  }
  const cut = result.entries.filter((entry) => entry.truncated).length;
  figures.textContent = [
    `${documents.length} documents`,
    `${result.tokens.toLocaleString()} tokens`,
    `${result.headers.get("x-total-time")} ms in the server, ${Math.round(result.ms)} ms in all`,
    cut ? `${cut} cut` : "none cut",
  ].join(" · ");
  const shown = result.entries.slice(0, Math.max(1, Number($("top").value) || 20));
  const highest = Math.max(...result.entries.map((entry) => entry.score), 1e-9);
  article.querySelector("ol").append(...shown.map((entry, place) => hit(result, entry, place, documents, query, highest, before)));
  return article;
}

function hit(result, entry, place, documents, query, highest, before) {
  const item = make("li", { className: "hit" });
  const bar = make("span");
  bar.style.width = `${Math.max(0, Math.min(100, (100 * entry.score) / highest))}%`;
  item.append(
    make("div", { className: "head" }, [
      make("span", { className: "rank", textContent: String(place + 1) }),
      make("span", { className: "bar", role: "presentation" }, [bar]),
      make("span", { className: "score", textContent: entry.score.toFixed(4) }),
    ]),
    make("p", { className: "text", textContent: documents[entry.index] }),
  );
  const meta = make("p", { className: "meta" });
  meta.append(make("span", { textContent: `line ${entry.index + 1}` }));
  if (entry.tokens !== undefined) meta.append(make("span", { textContent: `${entry.tokens} tokens` }));
  if (entry.truncated) meta.append(make("span", { className: "cut", textContent: "cut: too long for the model" }));
  const moved = before && before.get(entry.index) - place;
  if (moved) meta.append(make("span", { className: "moved", textContent: moved > 0 ? `▲ ${moved}` : `▼ ${-moved}` }));
  if (result.model.task === "late") meta.append(heatButton(result.model, query, documents[entry.index], item));
  item.append(meta);
  return item;
}

// -- late interaction: which token meets which --------------------------------------------------------------------------

function heatButton(model, query, text, item) {
  const button = make("button", { type: "button", textContent: "Show tokens" });
  button.setAttribute("aria-expanded", "false");
  button.addEventListener("click", async () => {
    const open = item.querySelector(".scroll, .problem");
    button.setAttribute("aria-expanded", String(!open));
    button.textContent = open ? "Show tokens" : "Hide tokens";
    if (open) return open.remove();
    try {
      const { answer } = await call("page/match", { model: model.id, query, document: text });
      item.append(heat(answer));
    } catch (error) {
      item.append(make("p", { className: "problem", textContent: error.message }));
    }
  });
  return button;
}

function heat({ query, document: tokens, scores }) {
  const head = make("tr", {}, [make("td"), ...tokens.map((token) => make("th", { scope: "col", textContent: token }))]);
  const rows = query.map((token, row) => {
    const best = scores[row].indexOf(Math.max(...scores[row]));
    const cells = scores[row].map((score, column) => cell(score, column === best ? "best" : ""));
    return make("tr", {}, [make("th", { scope: "row", textContent: token }), ...cells]);
  });
  const table = make("table", { className: "heat" }, [make("thead", {}, [head]), make("tbody", {}, rows)]);
  table.setAttribute("aria-label", "Similarity of each token of the query and each of the document; the best of a row counts");
  return make("div", { className: "scroll", tabIndex: 0 }, [table]);
}

function cell(score, extra) {
  const made = make("td", { className: `cell ${extra}`, textContent: score.toFixed(2).replace("-0.00", "0.00") });
  made.style.backgroundColor = `rgb(var(--heat) / ${Math.max(0, Math.min(0.75, score * score * 0.75)).toFixed(3)})`;
  return made;
}

// -- similarity of texts ------------------------------------------------------------------------------------------------

async function compare(event) {
  event.preventDefault();
  const texts = lines($("texts").value).slice(0, MOST_TEXTS);
  const model = models[Number($("dense").value)];
  const body = { model: model.id, input: texts };
  await busy($("similar-form"), async () => {
    const place = $("matrix");
    try {
      const { answer, headers } = await call("v1/embeddings", body);
      place.replaceChildren(matrix(texts, answer.data.map((each) => each.embedding), answer.usage, headers, body));
    } catch (error) {
      place.replaceChildren(make("p", { className: "problem card", textContent: error.message, role: "alert" }));
    }
  });
}

function matrix(texts, vectors, usage, headers, body) {
  const lengths = vectors.map((vector) => Math.hypot(...vector) || 1);
  const cosine = (a, b) => vectors[a].reduce((sum, x, i) => sum + x * vectors[b][i], 0) / lengths[a] / lengths[b];
  const head = make("tr", {}, [make("td"), ...texts.map((text, n) => make("th", { scope: "col", textContent: String(n + 1), title: text }))]);
  const rows = texts.map((text, row) =>
    make("tr", {}, [
      make("th", { scope: "row", textContent: `${row + 1} ${text}`, title: text }),
      ...texts.map((_other, column) => cell(cosine(row, column), "")),
    ]),
  );
  const table = make("table", {}, [make("thead", {}, [head]), make("tbody", {}, rows)]);
  table.setAttribute("aria-label", "Cosine of every two texts");
  const article = $("ranking").content.cloneNode(true).firstElementChild;
  article.className = "card";
  article.querySelector("h2").textContent = `${body.model} · ${vectors[0].length} dimensions`;
  article.querySelector(".figures").textContent = `${texts.length} texts · ${usage.total_tokens} tokens · ${headers.get("x-total-time")} ms in the server`;
  article.querySelector("ol").replaceWith(make("div", { className: "scroll", tabIndex: 0 }, [table]));
  snippets(article, "v1/embeddings", body);
  return article;
}

// -- the call, to copy --------------------------------------------------------------------------------------------------

function snippets(article, path, body) {
  const url = new URL(path, document.baseURI).href;
  const key = $("key").value ? "$FASTRANK_API_KEY" : "";
  const json = JSON.stringify(body, null, 1);
  const quoted = json.replaceAll("'", "'\\''");
  const curl = `curl ${url} -H 'Content-Type: application/json'${key ? ` -H "Authorization: Bearer ${key}"` : ""} -d '${quoted}'`;
  const headers = key ? `{"Authorization": "Bearer " + os.environ["FASTRANK_API_KEY"]}` : "{}";
  const python = [
    key ? "import json, os, urllib.request" : "import json, urllib.request",
    `body = json.loads(${pythonString(json)})`,
    `request = urllib.request.Request(${JSON.stringify(url)}, json.dumps(body).encode(), ${headers})`,
    "print(json.load(urllib.request.urlopen(request)))",
  ].join("\n");
  const places = article.querySelectorAll(".snippet");
  [curl, python].forEach((text, index) => {
    places[index].querySelector("pre").textContent = text;
    places[index].querySelector(".copy").addEventListener("click", (event) => copy(text, event.target));
  });
}

function pythonString(text) {
  return JSON.stringify(text).replace(/[\u007f-\uffff]/g, (letter) => "\\u" + letter.charCodeAt(0).toString(16).padStart(4, "0"));
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea", { value: text });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = "Copy"), 1500);
}

// -- files --------------------------------------------------------------------------------------------------------------

async function open(file) {
  const text = (await file.text()).replace(/^\ufeff/, "");
  const name = file.name.toLowerCase();
  let found = lines(text);
  if (name.endsWith(".csv") || name.endsWith(".tsv")) found = column(text, name.endsWith(".tsv") ? "\t" : ",");
  else if (/\.(jsonl|ndjson|json)$/.test(name)) found = objects(text);
  $("documents").value = found.map((line) => line.replace(/\s*\n\s*/g, " ")).join("\n");
  count();
}

function objects(text) {
  const whole = parsed(text);
  const rows = Array.isArray(whole) ? whole : lines(text).map((line) => parsed(line) ?? line);
  return rows.map(textOf).filter(Boolean);
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function textOf(row) {
  if (typeof row === "string") return row;
  if (!row || typeof row !== "object") return "";
  const named = ["text", "document", "content", "body", "passage"].find((name) => typeof row[name] === "string");
  return named ? row[named] : Object.values(row).find((value) => typeof value === "string") ?? "";
}

function column(text, separator) {
  const rows = cells(text, separator).filter((row) => row.some((value) => value.trim()));
  const names = ["text", "document", "content", "body", "passage"];
  const place = (rows[0] ?? []).findIndex((name) => names.includes(name.trim().toLowerCase()));
  return rows.slice(place < 0 ? 0 : 1).map((row) => row[Math.max(0, place)] ?? "").filter((value) => value.trim());
}

function cells(text, separator) {
  const rows = [[""]];
  let quoted = false;
  for (let at = 0; at < text.length; at++) {
    const letter = text[at];
    const row = rows[rows.length - 1];
    if (quoted && letter === '"' && text[at + 1] === '"') row[row.length - 1] += text[++at];
    else if (letter === '"') quoted = !quoted;
    else if (!quoted && letter === separator) row.push("");
    else if (!quoted && letter === "\n") rows.push([""]);
    else if (quoted || letter !== "\r") row[row.length - 1] += letter;
  }
  return rows;
}

// -- small things -------------------------------------------------------------------------------------------------------

function lines(text) {
  return text.split(/\r?\n/).filter((line) => line.trim());
}

function make(tag, properties = {}, children = []) {
  const made = Object.assign(document.createElement(tag), properties);
  if (properties.role) made.setAttribute("role", properties.role);
  if (properties.scope) made.setAttribute("scope", properties.scope);
  made.append(...children);
  return made;
}

async function busy(form, work) {
  const button = form.querySelector(".go");
  button.disabled = true;
  form.setAttribute("aria-busy", "true");
  try {
    await work();
  } finally {
    button.disabled = false;
    form.removeAttribute("aria-busy");
  }
}

function count() {
  const found = lines($("documents").value).length;
  $("count").textContent = found === 1 ? "1 document" : `${found} documents`;
}

function show(tab) {
  for (const each of document.querySelectorAll("[role=tab]")) {
    const chosen = each === tab;
    each.setAttribute("aria-selected", String(chosen));
    each.tabIndex = chosen ? 0 : -1;
    $(each.getAttribute("aria-controls")).hidden = !chosen;
  }
}

function listen() {
  $("rank-form").addEventListener("submit", rank);
  $("similar-form").addEventListener("submit", compare);
  $("documents").addEventListener("input", count);
  $("key").addEventListener("change", () => models.length || start());
  $("file").addEventListener("change", () => $("file").files[0] && open($("file").files[0]));
  for (const form of [$("rank-form"), $("similar-form")])
    form.addEventListener("keydown", (event) => (event.ctrlKey || event.metaKey) && event.key === "Enter" && form.requestSubmit());
  const area = $("documents");
  area.addEventListener("dragover", (event) => (event.preventDefault(), area.classList.add("over")));
  area.addEventListener("dragleave", () => area.classList.remove("over"));
  area.addEventListener("drop", (event) => {
    area.classList.remove("over");
    if (!event.dataTransfer.files[0]) return;
    event.preventDefault();
    open(event.dataTransfer.files[0]);
  });
  const tabs = [...document.querySelectorAll("[role=tab]")];
  tabs.forEach((tab, at) => {
    tab.addEventListener("click", () => show(tab));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const next = step && tabs[(at + step + tabs.length) % tabs.length];
      if (next && !next.disabled) (show(next), next.focus());
    });
  });
}

async function start() {
  try {
    await loadModels();
    $("rankings").replaceChildren();
  } catch (error) {
    $("rankings").replaceChildren(make("p", { className: "problem", textContent: error.message, role: "alert" }));
  }
}

$("documents").value = FILMS.join("\n");
$("texts").value = FILMS.join("\n");
count();
listen();
await start();
document.documentElement.dataset.ready = "true";
