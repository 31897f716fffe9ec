// The official JavaScript clients against a live server: node cases.mjs URL [folder with node_modules]
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import path from "node:path";
import assert from "node:assert/strict";

const [url, folder = "."] = process.argv.slice(2);
const require = createRequire(path.resolve(folder, "x.js"));
const load = (name) => import(pathToFileURL(require.resolve(name)).href);
const QUERY = "capital of France";
const DOCUMENTS = ["BM25 ranks documents", "Paris is the capital of France", "dogs bark at night"];

function ranked(scores) {
  assert.deepEqual(scores, [...scores].sort((a, b) => b - a));
  assert.ok(scores.every((score) => score >= 0 && score <= 1));
}

const cases = {
  openai: async () => {
    const { default: OpenAI } = await load("openai");
    const client = new OpenAI({ apiKey: "any", baseURL: `${url}/v1` });
    const model = "text-embedding-3-small";
    const found = (await client.embeddings.create({ model, input: DOCUMENTS })).data;
    const plain = (await client.embeddings.create({ model, input: DOCUMENTS, encoding_format: "float" })).data;
    assert.equal(found.length, 3);
    assert.equal(found[0].embedding.length, plain[0].embedding.length); // a list read as bytes has a quarter
    found[0].embedding.forEach((value, at) => assert.ok(Math.abs(value - plain[0].embedding[at]) < 1e-6));
  },
  "cohere-ai": async () => {
    const { CohereClient, CohereClientV2 } = await load("cohere-ai");
    const options = { token: "any", environment: url };
    const one = await new CohereClient(options).rerank({ model: "rerank-v3.5", query: QUERY, documents: DOCUMENTS, topN: 2 });
    assert.equal(one.results.length, 2);
    const two = await new CohereClientV2(options).rerank({ model: "rerank-v3.5", query: QUERY, documents: DOCUMENTS });
    ranked(two.results.map((each) => each.relevanceScore));
    const embedded = await new CohereClientV2(options).embed({
      model: "embed-english-v3.0", texts: DOCUMENTS, inputType: "search_document", embeddingTypes: ["float"],
    });
    assert.equal(embedded.embeddings.float.length, 3);
  },
  voyageai: async () => {
    const { VoyageAIClient } = await load("voyageai");
    const client = new VoyageAIClient({ apiKey: "any", environment: `${url}/v1` });
    const found = await client.rerank({ model: "rerank-2.5", query: QUERY, documents: DOCUMENTS });
    ranked(found.data.map((each) => each.relevanceScore));
    assert.equal((await client.embed({ model: "voyage-3", input: DOCUMENTS })).data.length, 3);
  },
  "@langchain/cohere": async () => {
    const { CohereClient } = await load("cohere-ai");
    const { CohereEmbeddings, CohereRerank } = await load("@langchain/cohere");
    const client = new CohereClient({ token: "any", environment: url });
    const found = await new CohereRerank({ client, model: "rerank-v3.5", topN: 2 }).rerank(DOCUMENTS, QUERY);
    ranked(found.map((each) => each.relevanceScore));
    assert.equal((await new CohereEmbeddings({ client, model: "embed-english-v3.0" }).embedDocuments(DOCUMENTS)).length, 3);
  },
  "@langchain/openai": async () => {
    const { OpenAIEmbeddings } = await load("@langchain/openai");
    const options = { model: "text-embedding-3-small", apiKey: "any", configuration: { baseURL: `${url}/v1` } };
    assert.equal((await new OpenAIEmbeddings(options).embedDocuments(DOCUMENTS)).length, 3);
  },
};

for (const [name, run] of Object.entries(cases)) {
  try {
    require.resolve(name);
  } catch {
    console.log(`${name}: skipped`);
    continue;
  }
  try {
    await run();
    console.log(`${name}: ok`);
  } catch (error) {
    console.log(`${name}: ${error.stack}`);
    process.exitCode = 1;
  }
}
