"""fastrank inside other libraries: one module per host, which imports its host when it is used."""
