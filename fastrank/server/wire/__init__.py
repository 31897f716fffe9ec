"""Wire formats: one module for each family of clients.

Each has functions `(request) -> Exchange`, which read a JSON body into a call and know how its result is answered.
They do no I/O and know no model, so a recorded request and answer are all a test needs.
"""
