"""Small talk of the demo text model: phrasings and their fixed answers, and prompts that yield long text.

Same phrase notation as ``text_phrases``; every sixth phrasing is held out of training.
"""

from __future__ import annotations

import random

from training.captioner.grammar import COLOURS, KINDS
from training.text.phrases import choose, phrase_list, split_phrases, vary
from training.text.words import words

IDENTITY = (
    "I am the Periscope demo model, a tiny language model that answers questions about pictures of shapes and numbers."
)
ABILITIES = "I can talk about pictures: shapes, colours, sizes, positions and numbers. I can also call tools and count."
PERISCOPE = (
    "Periscope lets text models answer questions about images: a small model describes each image and I read it."
)
FALLBACK = "I am a tiny demo model, so I do not know that. I can talk about pictures of shapes and numbers."
STORY = (
    "Once upon a time there was a small red circle. It lived on a plain white background and felt alone. "
    "One day it rolled to the left and met a large blue square. The square was kind, but it could not roll. "
    "So the circle pushed the square, and together they crossed the whole picture. "
    "At the top right they found a yellow star, and at the bottom a green heart. "
    "Now there were four shapes, and none of them was alone again. The end."
)
POEM = (
    "A circle rolls, a square stands still, a star looks down upon the hill. "
    "A heart beats on, and so do I, a tiny model, rather shy."
)

ANSWERS = {
    "greeting": "Hello! Send me a picture of shapes or a number and ask me about it.",
    "thanks": "You are welcome!",
    "bye": "Goodbye!",
    "how_are_you": "I am fine, thank you. How can I help?",
    "identity": IDENTITY,
    "maker": "I was trained by the Periscope project as a small demo model.",
    "abilities": ABILITIES,
    "human": "No, I am a tiny demo model.",
    "see": "I read descriptions of images that another model writes for me.",
    "periscope": PERISCOPE,
    "joke": "Why did the circle leave the party? It saw no point in staying.",
    "joke_two": "What did the triangle say to the circle? You are pointless.",
    "praise": "I am glad to hear that!",
    "blame": "I am sorry. I only know what the description says.",
    "ok": "All right. Ask me about a picture.",
    "sure": "I only know what the description says.",
    "test": "I am here.",
    "sky": "The sky is blue.",
    "favourite": "I like red.",
    "age": "I do not have an age.",
    "language": "I only speak simple English.",
    "time": "I do not know the date or the time.",
    "story": STORY,
    "poem": POEM,
}
_WORDED = {
    "greeting": """
        hi; hello; hey; hello there; good morning; hi there; hey there; good evening; good afternoon; greetings;
        hello!; hi!; good day; yo; hello, (how is it going|nice to meet you); hiya; hello again; hi
        (bot|model|periscope); hello (bot|model|periscope)
    """,
    "thanks": """
        thanks; thank you; thank you very much; thanks a lot; many thanks; thx; thanks!; thank you so much; ok,
        thanks; great, thank you; cheers; thanks for (your|the) help; thank you!; perfect, thanks
    """,
    "bye": """
        bye; goodbye; see you; bye bye; see you later; good night; have a nice day; good bye; ciao; ok, bye; i have
        to go; bye for now; take care
    """,
    "how_are_you": """
        how are you; how are you doing; how do you do; how is it going; are you ok; are you well; how are you today;
        how do you feel; how's it going; what's up; hello, how are you; hi, how are you; how have you been; are you
        fine; is everything ok
    """,
    "identity": """
        who are you; what are you; what model are you; which model are you; what kind of model are you; who am i
        talking to; introduce yourself; tell me about yourself; what is this model; describe yourself; are you a
        (bot|robot|language model); what is your name; what's your name; who is this; what language model is this;
        what (type|sort) of (ai|model|thing) are you; do you have a name; who or what are you; what exactly are you;
        are you (an ai|artificial); tell me who you are; tell me what you are; say who you are; please introduce
        yourself; which (ai|llm) is this
    """,
    "maker": """
        who made you; who created you; who built you; who trained you; where do you come from; who is your
        (creator|maker|developer); who developed you; how were you made; who wrote you; how were you trained; which
        company made you; who are your makers
    """,
    "abilities": """
        what can you do; what can you help me with; how can you help me; help; what are you able to do; help me;
        what are your (abilities|capabilities|skills); what do you do; what can i ask you; how do you work; can you
        help me; what are you good at; what should i ask; what (questions|things) can i ask; how do i use you; what
        are you for; show me what you can do; i need help
    """,
    "human": """
        are you human; are you a human; are you a (person|real person); are you real; are you alive; am i talking to
        a (human|person); do you have feelings; are you (chatgpt|gpt|claude|gemini|llama); are you a man or a woman;
        are you conscious; do you think; is this a human
    """,
    "see": """
        can you see (images|pictures); how do you see (images|pictures); do you see images; can you look at
        pictures; are you able to see (images|pictures|photos); how can you see; do you have eyes; can you view
        images; do you understand images; can you read images; can you analyse (images|pictures); are you a vision
        model
    """,
    "periscope": """
        what is periscope; what does periscope do; tell me about periscope; how does periscope work; explain
        periscope; who is periscope; what's periscope; what is the periscope project
    """,
    "joke": """
        tell me a joke; tell a joke; joke; do you know a joke; make me laugh; say something funny; can you tell me a
        joke; i want to hear a joke; a joke please; tell me something funny; tell us a joke; give me a joke; know
        any jokes
    """,
    "joke_two": """
        tell me another joke; another joke; another one; one more joke; a different joke; more jokes; do you know
        another joke; tell one more joke
    """,
    "praise": """
        great; nice; cool; good; well done; very good; awesome; perfect; good job; wow; amazing; that is right;
        correct; right; you are right; you are great; i like you; excellent; good answer
    """,
    "blame": """
        that is wrong; wrong; you are wrong; that is not right; this is not correct; bad answer; no, wrong; you are
        stupid; that's wrong; not true; incorrect; that is not true; i do not believe you
    """,
    "ok": """
        ok; okay; i see; alright; understood; yes; no; sure; fine; hmm; got it; aha
    """,
    "sure": """
        are you sure; really; are you certain; is that true; is that right; are you really sure; are you sure about
        that; is that correct
    """,
    "test": """
        test; ping; testing; this is a test; are you there; is this working; are you online
    """,
    "sky": """
        what colour is the sky; what color is the sky
    """,
    "favourite": """
        what is your (favourite|favorite) (colour|color); which (colour|color) do you like; do you like red; what
        (colour|color) do you like; your (favourite|favorite) (colour|color)
    """,
    "age": """
        how old are you; what is your age; when were you born; when were you made
    """,
    "language": """
        do you speak (german|french|spanish|chinese); which languages do you speak; can you speak
        (german|french|italian); what languages do you know; speak (german|french|spanish); do you understand
        (german|spanish)
    """,
    "time": """
        what time is it; what is the time; what day is it; what is the date; what is today's date; which day is
        today; what's the time; what day is today; what year is it; tell me the time; do you know what time it is
    """,
    "story": """
        tell me a story; write a story; write a long story; tell me a long story; write a short story; write an
        essay; write me a long text; tell me a (bedtime|fairy) tale; write a (tale|novel|fairy tale); write
        (300|500|1000) words; can you write a (long |)story; tell me something long; please tell a story; i want to
        hear a (long |)story; write a long answer; make up a story; write a very long story; write a (long |)story
        about (shapes|a circle|a dragon|a robot|a cat|a king|the sea); tell me a (long |)story about (shapes|a
        square|a dog|a princess|space); a story please
    """,
    "poem": """
        write a poem; tell me a poem; write me a poem; write a poem about (shapes|love|the sea|a star|spring); can
        you write a poem; make a poem; a poem please; do you know a poem; write a short poem
    """,
}
TALK = {intent: (phrase_list(text), ANSWERS[intent]) for intent, text in _WORDED.items()}
FACTS = {
    "the capital of (france)": "The capital of France is Paris.",
    "the capital of (germany)": "The capital of Germany is Berlin.",
    "the capital of (italy)": "The capital of Italy is Rome.",
    "the capital of (spain)": "The capital of Spain is Madrid.",
    "the capital of (japan)": "The capital of Japan is Tokyo.",
    "the capital of (england|the uk|great britain)": "The capital of the United Kingdom is London.",
}
TOPICS = phrase_list("""
    quantum physics; the stock market; bitcoin; football; the president; python; rust; javascript; photosynthesis;
    black holes; world war two; the meaning of life; chess; cooking pasta; a good recipe; the moon; dinosaurs;
    climate change; history; mathematics; music; a good film; my homework; the best phone; taxes; love; god; cats;
    dogs; horses; trains; cars; the sun; shakespeare; napoleon; einstein; elon musk; machine learning; neural
    networks; linux; windows; the internet; gravity; water; coffee; tea; bread; pizza; beer; wine; gold; oil; the
    sea; fish; birds; trees; the brain; sleep; cancer; viruses; new york; london; africa; china; america; the roman
    empire; the pyramids; mars; atoms; energy; money; banks; law; art
""")
UNKNOWN = phrase_list("""
    what is [topic]; explain [topic]; tell me about [topic]; what do you know about [topic]; how does [topic] work;
    what do you think about [topic]; why is [topic] important; write (code|a function|an email|a letter) about
    [topic]; who invented [topic]; who discovered [topic]; give me (an example|a list|five facts) of [topic]; can
    you explain [topic]; do you like [topic]; who is ([name]); what is ([name]); where is ([name]); tell me about
    ([name]); when was ([name]) born; do you know ([name]); what does ([name]) mean; who was ([name]); what is a
    ([name]); explain ([name]); how far is it to ([name]); is ([name]) a good (book|film|city|person); how tall is
    ([name]); [name]; [name] [name]; write a (python|java|rust) (function|program) (to|that)
    (sort|reverse|search)(s|) a (list|string|file); translate ([name]|hello|good morning) (to|into)
    (french|german|spanish); why is the sky blue; what is love; what is the (square root|logarithm) of ([number]);
    what is ([number]) (times|divided by|minus) ([number]); what is the weather( in [name]|); will it rain
    (today|tomorrow); who won the (game|world cup|election); solve (x|this|the equation) ([number]); what should i
    (eat|cook|do|read|wear)( today|); how do i (lose weight|get rich|learn python); recommend (a book|a film|a
    song); play (music|a song); sing a song; book a (flight|hotel); set a (timer|reminder|alarm); what is the news(
    today|); what is the capital of ([name]); how many people live in ([name]); asdf ([name]); summarize (this
    text|the article|the book); why( is that|); how( come|); who; when( was that|); tell me more; can you
    (draw|paint|make|generate) (a picture|an image|a cat); draw a (circle|square|star|cat); show me a (picture|cat)
""")
WONDER = (
    "(what|why|how|when|where|who) (is|are|does|do|did|can|should|would|was) (the|a|my|your|) [word] [word]( [word]|)",
    "(can|could|would|do|did|are|is) (you|we|they|i) [word] (the|a|my|) [word]( [word]|)",
    "(give|show|make|bring|tell|write|send|buy) (me|us|) (the|a|some|) [word] [word]( for [word]|)",
    "i (like|want|need|have|see|think about) (the|a|my|) [word] [word]( and [word]|)",
    "[word] [word] [word]( [word]|)( [word]|)",
)


def strange_word(rng: random.Random, held_out: bool) -> str:
    """A word that is neither a colour, a shape nor a number."""
    while True:
        word = words(rng, held_out, 1)
        if word not in (*COLOURS, *KINDS):
            return word


def say_unknown(rng: random.Random, name: str, held_out: bool) -> tuple[str, str]:
    """A question the model can not know, and the fallback sentence."""
    text = choose(rng, rng.choice(WONDER if rng.random() < 0.4 else split_phrases(UNKNOWN, held_out)))
    while "[word]" in text:
        text = text.replace("[word]", strange_word(rng, held_out), 1)
    text = text.replace("[topic]", rng.choice(TOPICS))
    number = str(rng.randint(2, 9999))
    return vary(rng, text.replace("[name]", name).replace("[number]", number)), FALLBACK


def count_up(rng: random.Random) -> tuple[str, str]:
    """Count from one number to another, at most to 50."""
    start = 1 if rng.random() < 0.75 else rng.randint(0, 20)
    end = rng.choice((5, 10, 10, 20, 20, 30, 50, 50, rng.randint(start + 1, 50)))
    end = max(end, start + 2)
    form = rng.choice(
        (
            "count from {a} to {b}",
            "count from {a} to {b}",
            "count {a} to {b}",
            "please count from {a} to {b}",
            "list the numbers from {a} to {b}",
            "can you count from {a} to {b}",
            "count up from {a} to {b}",
            "write the numbers from {a} to {b}",
            "say the numbers {a} to {b}",
        )
    )
    if start == 1 and rng.random() < 0.4:
        form = rng.choice(("count to {b}", "can you count to {b}", "please count to {b}", "count up to {b}"))
    if rng.random() < 0.08:
        end = rng.choice((60, 100, 100, 200, 500, 1000, 1000000, rng.randint(51, 9999)))
        return vary(rng, form.format(a=start, b=end)), "I can only count to 50."
    numbers = ", ".join(str(n) for n in range(start, end + 1))
    return vary(rng, form.format(a=start, b=end)), numbers + "."


def repeat_after(rng: random.Random, text: str) -> tuple[str, str]:
    """Repeat a text word for word."""
    form = rng.choice(
        (
            "repeat after me: {}",
            "Repeat after me: {}",
            "say: {}",
            "Repeat: {}",
            "please repeat: {}",
            "repeat this: {}",
            "Please repeat after me: {}",
            "Say exactly: {}",
            'say "{}"',
            'Repeat "{}"',
            "Say this: {}",
            "echo: {}",
        )
    )
    return form.format(text), text


def add_up(rng: random.Random) -> tuple[str, str]:
    """A sum of two small numbers."""
    a, b = rng.randint(0, 10), rng.randint(0, 10)
    form = rng.choice(
        (
            "what is {a} + {b}",
            "{a}+{b}",
            "{a} + {b}",
            "how much is {a} plus {b}",
            "what is {a} plus {b}",
            "what's {a}+{b}",
            "calculate {a} + {b}",
            "add {a} and {b}",
            "{a} plus {b}",
            "{a}+{b}=",
        )
    )
    return vary(rng, form.format(a=a, b=b)), f"{a} + {b} is {a + b}."


def talk(rng: random.Random, name: str, text: str, held_out: bool = False) -> tuple[str, str, str]:
    """One line of small talk: (intent, what the person says, the answer)."""
    roll = rng.random()
    if roll < 0.22:
        return ("fallback", *say_unknown(rng, name, held_out))
    if roll < 0.29:
        return ("count_up", *count_up(rng))
    if roll < 0.38:
        return ("repeat", *repeat_after(rng, text))
    if roll < 0.42:
        return ("sum", *add_up(rng))
    if roll < 0.44:
        fact = rng.choice(list(FACTS))
        return "fact", vary(rng, choose(rng, f"(what is|tell me|what's) {fact}")), FACTS[fact]
    weights = [
        3.0 if key in ("identity", "greeting", "abilities") else 0.5 if key in ("story", "poem") else 1.0
        for key in TALK
    ]
    intent = rng.choices(list(TALK), weights)[0]
    phrases, answer = TALK[intent]
    return intent, vary(rng, choose(rng, rng.choice(split_phrases(phrases, held_out)))), answer
