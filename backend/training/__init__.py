"""How the embedded demo pair was trained: recipes that the product never imports and the wheel does not hold."""
