"""Phrasings of questions about images, by intent.

``(a|b)`` is a choice, ``{t}`` a thing ("red circle"), ``{at}`` the same with its article, ``{in}`` nothing or
" in image 2", ``{img}`` "the image" or "image 2"; other slots are named in ``text_questions``. Every sixth
phrasing of a list is held out: it is asked in the evaluation, never in training.
"""

from __future__ import annotations

import random
import re

HOLD_EVERY = 6
_CHOICE = re.compile(r"\(([^()]*)\)")

_WORDED = {
    "describe": """
        what is in {img}; what's in {img}; (describe|please describe) {img}; what (does|do) {img} show; what (do you
        see|can you see) in {img}; tell me (about|what is in) {img}; what is this{in}; what (is|'s) shown (in|on)
        {img}; describe what you see(| in {img}); explain {img}; (can|could) you (please |)describe {img}(| for me);
        give me a description of {img}; what's this; caption {img}; what (am i looking at|is this a picture of);
        what do you see{in}; what is (on|depicted in) {img}; what can be seen (in|on) {img}; please tell me what
        {img} shows; look at {img} and tell me what is there; (describe|explain) {img} in one sentence; what does
        {img} contain; what is (visible|there){in}; (summarize|summarise) {img}; (here is|this is) (a|my)
        (picture|image); what is happening (in {img}|here); what is going on (in {img}|here); describe {img} in
        detail; what's there{in}; describe it; what do you think (of|about) {img}; and this one; show me what is in
        {img}; what can you tell me about {img}; what can you see{in}; what is that
    """,
    "describe_all": """
        describe (the|both|all|these) (images|pictures); what is in the (images|pictures); what's in (these|the)
        (images|pictures); what do the (images|pictures) show; tell me about (the|all|these) (images|pictures); what
        can you see in the (images|pictures); what do you see in these (images|pictures); describe every
        (image|picture); describe each (image|picture); describe all of them; what is in (each|every)
        (image|picture); what is shown in (these|all the) pictures; describe them(| all); what is in both
        (images|pictures); what do you see in all (images|pictures); tell me what the (images|pictures) show
    """,
    "colour": """
        what (colour|color) is the {t}{in}; what is the (colour|color) of the {t}{in}; what's the (colour|color) of
        the {t}{in}; (tell me|say) the (colour|color) of the {t}{in}; which (colour|color) is the {t}{in}; which
        (colour|color) does the {t} have{in}; what (colour|color) does the {t}{in} have; (do you know|can you tell
        me) what (colour|color) the {t} is{in}; the {t}{in}, what (colour|color) is it; (colour|color) of the
        {t}{in}; i want to know the (colour|color) of the {t}{in}; please tell me what (colour|color) the {t}{in}
        is; {t} (colour|color); what (colour|color) is that {t}{in}; how is the {t} (coloured|colored){in}; the
        {t}'s (colour|color); in what (colour|color) is the {t}{in}; what is the {t}'s (colour|color); what
        (colour|color) has the {t}{in}; {t}, what (colour|color); give me the (colour|color) of the {t}{in}
    """,
    "colours": """
        what (colour|color) is it; what (colours|colors) (are there|do you see|are in it){in}; which
        (colours|colors) are (in {img}|there); what (colours|colors) are in {img}; what (colour|color) is the
        (shape|figure|object|thing){in}; which (colour|color) is it; what is its (colour|color); what's the
        (colour|color) of the (shape|object|figure|thing){in}; and (the|its) (colour|color); tell me the
        (colours|colors){in}; what (colours|colors) are the shapes{in}; and what (colour|color) is it; what
        (colours|colors) does {img} have; (colour|color); what are the (colours|colors){in}; what (colour|color) is
        this; name the (colours|colors){in}
    """,
    "background": """
        what (colour|color) is the background{in}; what is the background (colour|color){in}; what's the background
        (colour|color){in}; what is the (colour|color) of the background{in}; which (colour|color) (is|does) the
        background(| have){in}; what (colour|color) does the background have{in}; background (colour|color); and the
        background; what about the background{in}; tell me the background (colour|color){in}; how is the background
        (coloured|colored){in}; what background (colour|color) does {img} have; what is the background{in}; describe
        the background{in}; the background (colour|color) please; on what background is it; what (colour|color) is
        behind the (shape|shapes)
    """,
    "kind": """
        what shape is it; what shape is (in|on) {img}; (what|which) shapes are (in|on) {img}; what kind of shape is
        (it|this|there){in}; which shape (do you see|is shown){in}; what (figure|figures) (is|are) in {img};
        (what|which) shapes (do you see|can you see|are there){in}; name the shapes{in}; list the shapes{in}; what
        (objects|things) are (in|on) {img}; tell me the (shape|shapes){in}; which shapes does {img} have; what
        (object|figure) is (in {img}|it); what shape is this; what is the shape{in}; (what|which) (figure|object) is
        it; what shapes are there; shape; what kind of (object|figure) is (it|there){in}
    """,
    "kind_of": """
        what shape is the {v} (one|thing){in}; what is the {v} (shape|thing|one|object){in}; which shape is {v}{in};
        what is {v}{in}; what kind of shape is the {v} one{in}; what shape is {v}{in}; the {v} (one|shape){in}, what
        is it; what {v} (shape|thing|object) is (there|in {img}); which {v} shape is (there|in {img}); what's the
        {v} (shape|thing|one|object){in}
    """,
    "count": """
        how many shapes are (there|in {img}); how many shapes (do you see|can you see|are there){in}; how many
        (objects|things|figures) are (there|in {img}); count the shapes{in}; what is the number of shapes{in}; how
        many shapes does {img} (have|show|contain); how many (objects|things) do you see{in}; (tell me|say) how many
        shapes there are{in}; number of shapes{in}; can you count the (shapes|objects){in}; how many are there{in};
        please count the (objects|things|shapes) in {img}; how many different shapes are there{in}; how many
        (objects|things|figures|elements) are (shown|visible){in}; how many
    """,
    "count_of": """
        how many {ts} are (there|in {img}); how many {ts} (do you see|can you see|are there){in}; count the
        {ts}{in}; how many {ts}{in}; what is the number of {ts}{in}; how many {ts} does {img} have; (tell me|say)
        how many {ts} there are{in}; how many {ts} are shown{in}
    """,
    "count_all": """
        how many shapes are there in (total|all the images|all images); how many shapes are there in total; how many
        shapes are there altogether; count all shapes in all (images|pictures); how many shapes do (the|all)
        (images|pictures) have (together|in total); how many shapes are in all the pictures together
    """,
    "count_images": """
        how many (images|pictures) (are there|do you see|can you see); how many (images|pictures) did i send(| you);
        how many (images|pictures) have i sent; how many (images|pictures) are (here|in our conversation|in this
        chat); count the (images|pictures); how many (images|pictures|photos) did i give you
    """,
    "place": """
        where is the {t}{in}; where's the {t}{in}; (where can i find|where do you see) the {t}{in}; what is the
        position of the {t}{in}; (tell me|say|do you know) where the {t} is{in}; where is the {t}
        (located|placed|positioned){in}; in which (part|corner|place) is the {t}{in}; position of the {t}{in}; at
        what position is the {t}{in}; which position does the {t} have{in}; can you tell me where the {t} is{in};
        what position is the {t} in; where in {img} is the {t}; at which place is the {t}{in}; where exactly is the
        {t}{in}
    """,
    "places": """
        where is it; where is the (shape|object|figure|thing){in}; what is its position; and where is it; where are
        the shapes{in}; where is the (thing|object) in {img}; how are the shapes (arranged|placed){in}
    """,
    "size": """
        how (big|large) is the {t}{in}; what size is the {t}{in}; what is the size of the {t}{in}; what size does
        the {t} have{in}; which size is the {t}{in}; what's the size of the {t}{in}; (tell me|say) how (big|large)
        the {t} is{in}; (tell me|say) the size of the {t}{in}; size of the {t}{in}; is the {t} (big or small|small
        or large|large or small){in}; how small is the {t}{in}; can you tell me how big the {t} is{in}
    """,
    "sizes": """
        how (big|large) is it; what size is it; what is its size; how (big|large) is the
        (shape|thing|object|figure){in}; and its size; what size is the (shape|object|thing){in}; how big are the
        shapes{in}
    """,
    "number": """
        what number is (it|this|that|there){in}; what number does it say; what number (is|do you see) (in|on) {img};
        which number is (in|on) {img}; what does it say; what is the number{in}; what's the number{in}; read the
        (number|text){in}; what (text|number) is (written|shown) (in|on) {img}; what is written (in|on) {img}; which
        number (do you see|can you see|is shown){in}; can you read the (number|text){in}; (tell me|say) the
        number{in}; what does {img} say; which number does {img} show; what does the (text|number) say{in}; please
        read (it|the number|the text|the digits){in}; what number does {img} (show|say|have); what digits (are
        there|do you see){in}; what is the text (in|on) {img}; number; what number; what's written (in|on) {img};
        what does the text say{in}; what is the value of the number{in}; what number is that; which digits are
        (in|on) {img}
    """,
    "number_colour": """
        what (colour|color) is the (number|text){in}; what is the (colour|color) of the (number|text){in}; which
        (colour|color) does the number have{in}; (tell me|say) the (colour|color) of the number{in}; in what
        (colour|color) is the number (written|){in}; which (colour|color) is the (number|text){in}
    """,
    "number_place": """
        where is the (number|text){in}; what is the position of the number{in}; where in {img} is the number; where
        do you see the number{in}; (tell me|say) where the number is{in}; where's the (number|text){in}
    """,
    "number_digits": """
        how many digits does the number have{in}; how many digits (has the number|are there){in}; how long is the
        number{in}; how many digits are in the number{in}
    """,
    "is_there": """
        is there {at}{in}; do you see {at}{in}; can you see {at}{in}; does {img} (have|show|contain) {at}; is there
        {at} (in {img}|there|somewhere); is {at} (in|on) {img}; are there any {ts}{in}; do you see any {ts}{in}; can
        you find {at}{in}; is any {t} there{in}; i am looking for {at}, is there one{in}; are there {ts}{in}; (tell
        me|say) if there is {at}{in}; is it {at}; is this {at}; is that {at}; is {at} visible{in}; does it show
        {at}; any {ts}{in}; is there also {at}{in}; is this a (picture|photo|image) of {at}
    """,
    "is_there_colour": """
        is there anything {v}{in}; is (anything|something) {v}{in}; is there something {v}{in}; is there a {v}
        (shape|thing|object){in}; do you see anything {v}{in}; do you see something {v}{in}; is it {v}; is the
        (shape|object|thing) {v}; are the shapes {v}; is there any {v} (shape|thing|object){in}; anything {v}{in}
    """,
    "is_there_number": """
        is there a number{in}; do you see a number{in}; does {img} (have|show|contain) a number; is there (any
        text|text|some text){in}; can you see a number{in}; is there any number{in}
    """,
    "is_colour": """
        is the {t} {v}{in}; is the {t}{in} {v}; is it true that the {t} is {v}{in}; the {t} is {v}, right; is the
        (colour|color) of the {t} {v}{in}; the {t}{in} is {v}, isn't it
    """,
    "is_background": """
        is the background {v}{in}; does {img} have a {v} background; is it on a {v} background; the background is
        {v}, right; is the background (colour|color) {v}{in}; is there a {v} background{in}
    """,
    "is_empty": """
        is {img} empty; is there nothing (in|on) {img}; is {img} blank; is it an empty (image|picture)
    """,
    "is_anything": """
        is there (anything|something) (in|on) {img}; does {img} show anything; is anything (in|on) {img}; do you see
        anything{in}
    """,
    "bigger": """
        is the {t} {cmp} than the {k2}{in}; is the {t}{in} {cmp} than the {k2}; would you say the {t} is {cmp} than
        the {k2}{in}; the {t} is {cmp} than the {k2}, right; (tell me|say) if the {t} is {cmp} than the {k2}{in};
        can you tell me if the {t} is {cmp} than the {k2}{in}
    """,
    "biggest": """
        which (shape|one|object) is (the biggest|the largest|bigger|larger|biggest|largest){in}; what is the
        (biggest|largest|bigger|larger) (shape|object|one){in}; what's the (biggest|largest) (shape|one|thing){in};
        which is (the biggest|the largest|bigger|larger){in}; name the (biggest|largest) shape{in}; which of
        (them|the shapes) is (bigger|the biggest|the largest){in}
    """,
    "smallest": """
        which (shape|one|object) is (the smallest|smaller|smallest){in}; what is the (smallest|smaller)
        (shape|object|one){in}; what's the smallest (shape|one|thing){in}; which is (the smallest|smaller){in}; name
        the smallest shape{in}; which of (them|the shapes) is (smaller|the smallest){in}
    """,
    "beside": """
        what is {side} the {k}{in}; what's {side} the {k}{in}; which shape is {side} the {k}{in}; what do you see
        {side} the {k}{in}; (tell me|say) what is {side} the {k}{in}; what shape is {side} the {k}{in}
    """,
    "is_beside": """
        is the {k} {side} the {k2}{in}; is the {k}{in} {side} the {k2}; the {k} is {side} the {k2}, right; can you
        tell me if the {k} is {side} the {k2}{in}; is it true that the {k} is {side} the {k2}{in}; (tell me|say) if
        the {k} is {side} the {k2}{in}
    """,
    "which": """
        which (image|picture) (shows|has|contains) the {t}; which (image|picture) (shows|has|contains) {at}; in
        which (image|picture) is the {t}; in which (image|picture) (is|do you see|can i see) {at}; where (do you
        see|can i see) the {t}, in which (image|picture); which of the (images|pictures) (shows|has) {at}; what
        (image|picture) (shows|has|contains) the {t}; which (image|picture) is the {t} in; which one (shows|has)
        {at}; (tell me|say) which (image|picture) (shows|has) the {t}; (on|in) which (image|picture) can you see
        {at}; which (image|picture|photo) is the one with the {t}; which one is the (image|picture) with {at}; find
        the (image|picture) with the {t}; where is the {t}, in which (image|picture); which (image|picture) (is|was)
        the one with {at}
    """,
    "compare": """
        what is the difference between {pair}; what's the difference between {pair}; compare {pair}; how do {pair}
        differ; what differs between {pair}; how are {pair} different; what is different between {pair}; what are
        the differences between {pair}; tell me the difference between {pair}; please compare {pair}(| for me); what
        is the difference; what's the difference; what changed; what has changed between {pair}; what do {pair}
        show, compare them
    """,
    "same": """
        are {pair} the same; are {pair} (equal|identical); do {pair} show the same(| thing); do {pair} show the same
        (shape|picture); do {pair} look the same; is it the same in {pair}; are they the same; is it the same
        (image|picture)
    """,
    "different": """
        is there (a|any) difference between {pair}; are {pair} different; do {pair} differ; do {pair} look
        different; are they different
    """,
    "why": """
        why (could|can) you not see {img}; why can't you (see|read) {img}; what (is|went) wrong with {img}; why
        could {img} not be read; what happened to {img}
    """,
    "about": """
        describe the {t}{in}; tell me (more |)about the {t}{in}; what does the {t} look like{in}; what can you say
        about the {t}{in}; give me a description of the {t}{in}; how does the {t} look{in}
    """,
    "side": """
        what is {where}{in}; what's {where}{in}; which shape is {where}{in}; what do you see {where}{in}; what shape
        is {where}{in}; what (object|thing) is {where}{in}
    """,
    "pixels": """
        how (big|large) is {img}; what is the size of {img}; what is the resolution of {img}; how many pixels does
        {img} have; what size (is|has) {img}; what are the dimensions of {img}; what resolution (is|has) {img}
    """,
    "captioner": """
        who described {img}; which model described {img}; what model (described|captioned) {img}; who wrote the
        description of {img}; which captioner (described|was used for) {img}; by whom was {img} described
    """,
}


def phrase_list(text: str) -> list[str]:
    """The phrasings of a text, which are parted by semicolons."""
    return [" ".join(phrase.split()) for phrase in text.split(";")]


PHRASES = {intent: phrase_list(text) for intent, text in _WORDED.items()}


def choose(rng: random.Random, text: str) -> str:
    """The text with each ``(a|b)`` replaced by one of its choices."""
    while True:
        chosen = _CHOICE.sub(lambda match: rng.choice(match.group(1).split("|")), text)
        if chosen == text:
            return text
        text = chosen


def split_phrases(phrases: list[str], held_out: bool) -> list[str]:
    """The held-out phrasings of a list (every sixth), or the others; all of a list shorter than six."""
    if len(phrases) < HOLD_EVERY:
        return phrases
    return [p for i, p in enumerate(phrases) if (i % HOLD_EVERY == HOLD_EVERY - 1) == held_out]


def vary(rng: random.Random, text: str) -> str:
    """The way people type: case, a missing question mark, a polite word before or after."""
    if rng.random() < 0.04:
        text = rng.choice(("please ", "hey, ", "hi, ", "ok, ", "so ", "now ", "and ", "well, ")) + text
    if rng.random() < 0.04:
        text = mistype(rng, text)
    if rng.random() < 0.3:
        text = text.replace("'", "")
    mark = rng.choices(("?", "", ".", " ?"), (62, 32, 5, 1))[0]
    style = rng.random()
    if style < 0.60:
        text = text[:1].upper() + text[1:]
    elif style < 0.63:
        text = text.upper()
    elif style < 0.66:
        text = text.title()
    elif style < 0.68:
        text = "".join(c.swapcase() if c.isalpha() and rng.random() < 0.04 else c for c in text)
    return text + mark


def mistype(rng: random.Random, text: str) -> str:
    """The text with one letter left out, doubled or swapped with the next."""
    spots = [index for index in range(len(text) - 1) if text[index : index + 2].isalpha()]
    if not spots:
        return text
    spot = rng.choice(spots)
    one, two = text[spot], text[spot + 1]
    return text[:spot] + rng.choice((two, one + one + two, two + one)) + text[spot + 2 :]
