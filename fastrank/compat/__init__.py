"""Programs that were written for other libraries, run on fastrank."""
