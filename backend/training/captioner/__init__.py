"""The captioner: pictures of shapes and digits, and a small model that says what is on them."""
