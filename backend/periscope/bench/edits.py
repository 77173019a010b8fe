"""Requests to edit a file, whose answer repeats most of it. Pure; knows no model."""

from __future__ import annotations

from periscope.bench.words import rng, words

#: Words of one function of a file.
_FUNCTION_WORDS = 16


def edit_prompt(num_words: int, *key: object) -> str:
    """Pure: a small file of functions, and the wish to have it back with one name changed; seeded by `key`."""
    count = max(1, num_words // _FUNCTION_WORDS)
    names = [words(2, *key, number).replace(" ", "_") for number in range(count)]
    file = "\n\n".join(_function(name, *key, number) for number, name in enumerate(names))
    return (
        f"Here is a file:\n```python\n{file}\n```\nWrite the file again with `{names[-1]}` renamed to `measure`. "
        "Answer with the whole file and nothing else."
    )


def _function(name: str, *key: object) -> str:
    chance = rng(*key)
    argument, result = words(2, *key, "names").split()
    return (
        f'def {name}({argument}):\n    """{words(4, *key, "told").capitalize()}."""\n'
        f"    {result}_{argument} = {argument} * {chance.randrange(2, 90)}\n"
        f"    return {result}_{argument} + {chance.randrange(2, 90)}"
    )
