"""fastrank inside other libraries: one module a host, each importing its host only when it is used."""
