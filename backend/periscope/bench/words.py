"""Prompts of plain words, different for every row and round. Pure; knows no model."""

from __future__ import annotations

import random

#: Common English words, so that most tokenizers have a token of its own for each.
WORDS = tuple(
    """
    about after again all also always and answer any ask away back because before best better between blue book both
    bring build call can car change child city clear close cold come could day door down each early end even every
    example eye far fast few field find first five follow food form found four friend from full game garden give go
    good great green ground grow half hand hard have head hear help here high hold home hope horse hour house how idea
    keep kind know land large last late learn leave left letter life light like line little live long look made make
    many mean milk mind money more morning most mother mountain move much music must name near need never new next
    night number often old once one only open order other our out over page paper part people picture place plant play
    point power problem put question quick quiet rain read red rest right river road room round run same school sea
    second see sentence set seven ship short should show side sing sister size sleep slow small snow some song soon
    sound spring stand star start state stay still stone stop story street strong study such summer sun sure table
    take talk teach tell ten than that their them then there these thing think three through time together tomorrow
    town travel tree true turn two under until use very voice wait walk want warm watch water way week well west what
    when where which white while why wind window winter wish with woman wood word work world write year yellow young
    """.split()  # noqa: SIM905 - three hundred quoted words are harder to read
)


def rng(*key: object) -> random.Random:
    """Random numbers seeded by `key`: the same key gives the same numbers."""
    return random.Random(repr(key))


def words(count: int, *key: object) -> str:
    """Pure: `count` random words, seeded by `key`: the same key gives the same text."""
    return " ".join(rng(*key).choices(WORDS, k=count))
