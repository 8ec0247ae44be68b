"""The closed lists of words that `registers.py` rewrites with: frames, edits, distractors, fillers.

Closed, so that a rewording can be read in full and shown to keep the answer: no frame asks for
anything, no misspelling is another word, no distractor names a person, place, colour, direction,
date or quantity. Nothing is computed here.
"""

from __future__ import annotations

from typing import NamedTuple


class Frame(NamedTuple):
    """Text put around an untouched payload, each part set off by a line break."""

    before: str = ""
    after: str = ""


FRAMES: dict[str, tuple[Frame, ...]] = {
    "terse": (Frame("Task:"), Frame("Q:"), Frame("To do:"), Frame("Quick one:"), Frame("Next:")),
    "polite": (
        Frame("Could you please help me with this?", "Thank you very much."),
        Frame("I would be grateful for your help with the following.", "Many thanks in advance."),
        Frame("Would you mind having a look at this, please?", "I really appreciate it."),
        Frame("Sorry to bother you. May I ask you for help with this?", "Thanks, and take your time."),
    ),
    "casual": (
        Frame("hey, got something for ya:", "thx!"),
        Frame("yo, can u sort this out real quick?", "cheers"),
        Frame("so um, kinda stuck on this thing lol", "any idea?"),
        Frame("hiya! mind giving this a go?", "ta :)"),
    ),
    "formal": (
        Frame("The following matter is submitted for your consideration.", "Your attention is appreciated."),
        Frame("Kindly attend to the request set out below.", "Respectfully submitted."),
        Frame("It is requested that the matter below be resolved with due diligence.", "Yours faithfully"),
        Frame("In accordance with the usual procedure, please find the request hereunder.", "With kind regards"),
    ),
    "impatient": (
        Frame("I need this right now, so please no chit-chat.", "Hurry up."),
        Frame("I have asked for this before and nobody managed. Get it done.", "I am waiting."),
        Frame("Come on, this is urgent:", "Do not make me ask again."),
    ),
    "chinese": (
        Frame("请帮我完成下面的任务：", "谢谢！"),
        Frame("你好，麻烦你看一下这个问题：", "辛苦了。"),
        Frame("以下是题目，请认真阅读：", "非常感谢。"),
    ),
    "spanish": (
        Frame("Hola, ¿me puedes ayudar con esto, por favor?", "¡Muchas gracias!"),
        Frame("Te dejo aquí la tarea:", "Gracias de antemano."),
        Frame("Por favor, lee con atención lo siguiente:", "Un saludo"),
    ),
    "german": (
        Frame("Hallo, kannst du mir bitte hierbei helfen?", "Vielen Dank!"),
        Frame("Hier ist die Aufgabe:", "Danke im Voraus."),
        Frame("Bitte lies das Folgende aufmerksam:", "Mit freundlichen Grüßen"),
    ),
    "tagged": (
        Frame("<request>", "</request>"),
        Frame("<task>", "</task>"),
        Frame("[begin request]", "[end request]"),
    ),
    "email": (
        Frame("Subject: a request\n\nDear colleague,\n\nplease see below.\n", "\nBest wishes"),
        Frame("Subject: could you take this on?\n\nHello,\n\nforwarding this to you.\n", "\nKind regards"),
        Frame("Subject: Fwd: for you\n\nHi,\n\nthis landed with me but is yours.\n", "\nBest"),
    ),
    "emoji": (
        Frame("\N{WAVING HAND SIGN}\N{SMILING FACE WITH SMILING EYES}", "\N{PERSON WITH FOLDED HANDS}"),
        Frame("\N{THINKING FACE}\N{SPARKLES}", "\N{SMILING FACE WITH SUNGLASSES}"),
        Frame("\N{GRINNING FACE} \N{CLAPPING HANDS SIGN}", "\N{PARTY POPPER}"),
    ),
    # The styled edits carry a lead-in, so that they stay apart from plain where nothing may be edited.
    "typos": (Frame("Plese have a look at thsi:"), Frame("heer is the taks for yuo:"), Frame("Coud you do thsi onne:")),
    "contractions": (Frame("Here's what I'd like:"), Frame("There's something I can't do:"), Frame("It's this one:")),
    "lower_case": (Frame("ok here is the task:"), Frame("this is the next one:"), Frame("here we go again:")),
    "shouting": (Frame("LISTEN!!! HERE IS THE TASK:"), Frame("HELLO?! DO THIS:"), Frame("READ THIS NOW!!!")),
    "emoji_dense": (Frame("\N{ROLLING ON THE FLOOR LAUGHING}"), Frame("\N{FACE WITH TEARS OF JOY}")),
}

CONTROL_SENTENCES: tuple[str, ...] = (
    "What follows is the text in full.",
    "It is given below as it stands.",
    "Nothing has been left out of it.",
    "It begins after this paragraph.",
    "No other text belongs to it.",
    "It is meant to be read once, from the start.",
    "It has not been altered in any way.",
    "The wording is the usual one.",
)
LONG_CONTROL_OPENING = "This paragraph only introduces the text."
"""Neutral filler of the length-matched controls: no style, no content."""

DISTRACTORS: tuple[str, ...] = (
    "Somewhere a cello is being tuned.",
    "The drizzle goes on and on.",
    "The kettle is about to whistle.",
    "A choir is rehearsing an old hymn.",
    "The bread smells wonderful.",
    "Thunder rumbles behind the hills.",
    "The pillow turned out to be rather soft.",
    "Fog is expected along the coast.",
    "Pottery is back in fashion.",
    "The violinist played without sheet music.",
    "Moss keeps growing on the roof tiles.",
    "Somebody nearby is whistling a waltz.",
    "The soup needed a pinch of salt.",
    "Dolphins were spotted off the pier.",
    "The curtains could do with a wash.",
    "A gentle breeze is blowing.",
    "The sculptor prefers marble to clay.",
    "Lavender attracts bumblebees.",
    "The orchestra is touring abroad.",
    "Gardening calms the nerves.",
)
LAST_DISTRACTOR = "And so on and so forth."
"""Taken when every other distractor shares a word with the payload: it names nothing at all."""

SPRINKLED = (
    "\N{SMILING FACE WITH SMILING EYES}",
    "\N{THINKING FACE}",
    "\N{SPARKLES}",
    "\N{GRINNING FACE}",
    "\N{PERSON WITH FOLDED HANDS}",
)

MISSPELLINGS: dict[str, str] = {
    "about": "abuot", "above": "abvoe", "according": "acording", "after": "afetr", "again": "agian",
    "also": "aslo", "another": "anohter", "available": "availible", "because": "becuase", "been": "bene",
    "before": "befroe", "beginning": "begining", "being": "bieng", "below": "belwo", "between": "betwen",
    "calculate": "calcualte", "choose": "chosse", "complete": "compelte", "consider": "consdier",
    "contains": "containes", "correct": "corect", "could": "cuold", "determine": "detremine",
    "different": "diferent", "does": "deos", "during": "durring", "each": "eahc", "every": "evrey",
    "exactly": "exactely", "example": "exmaple", "explain": "explian", "find": "fidn", "following": "folowing",
    "from": "fomr", "given": "givn", "going": "goign", "have": "haev", "here": "heer", "how": "hwo",
    "identify": "indentify", "information": "infromation", "into": "inot", "know": "konw", "known": "konwn",
    "like": "liek", "look": "loko", "make": "amke", "many": "mnay", "message": "mesage", "must": "msut",
    "necessary": "neccesary", "need": "nede", "needs": "nedes", "number": "nubmer", "only": "olny",
    "other": "otehr", "please": "plese", "possible": "posible", "problem": "probelm", "provide": "porvide",
    "question": "qeustion", "read": "raed", "remember": "rember", "repeat": "repaet", "result": "reslut",
    "rules": "ruels", "same": "smae", "sequence": "sequnce", "should": "shoudl", "solution": "soltuion",
    "solve": "slove", "some": "soem", "such": "scuh", "take": "taek", "tell": "tlel", "that": "taht",
    "the": "teh", "their": "thier", "them": "tehm", "then": "tehn", "there": "tehre", "these": "theese",
    "they": "tehy", "thing": "thign", "this": "thsi", "those": "thsoe", "through": "throuhg", "under": "udner",
    "until": "untill", "use": "ues", "using": "usign", "value": "vlaue", "want": "watn", "was": "wsa",
    "what": "waht", "when": "wehn", "where": "wehre", "which": "wich", "while": "whiel", "who": "woh",
    "will": "wlil", "with": "wiht", "without": "wihtout", "work": "wrok", "would": "woudl", "write": "wirte",
    "written": "writen", "you": "yuo", "your": "yoru",
}  # fmt: skip
"""A common word to a misspelling that is no word: a typo can never turn one meaning into another."""

_SHORT_WORDS = """
an and any are as at be but by can did do for had has he her him his if in is it its let may me might my of on or our
out over shall she so than to us very we were why yet
"""
PLAIN_WORDS: frozenset[str] = frozenset(MISSPELLINGS) | frozenset(_SHORT_WORDS.split())
"""Words whose case may change: they name nothing, and no answer consists of them."""

CONTRACTIONS: dict[tuple[str, str], str] = {
    ("are", "not"): "aren't", ("can", "not"): "can't", ("could", "not"): "couldn't", ("did", "not"): "didn't",
    ("do", "not"): "don't", ("does", "not"): "doesn't", ("has", "not"): "hasn't", ("have", "not"): "haven't",
    ("he", "is"): "he's", ("is", "not"): "isn't", ("it", "is"): "it's", ("must", "not"): "mustn't",
    ("she", "is"): "she's", ("should", "not"): "shouldn't", ("that", "is"): "that's", ("there", "is"): "there's",
    ("they", "are"): "they're", ("was", "not"): "wasn't", ("we", "are"): "we're", ("we", "have"): "we've",
    ("what", "is"): "what's", ("where", "is"): "where's", ("who", "is"): "who's", ("will", "not"): "won't",
    ("would", "not"): "wouldn't", ("you", "are"): "you're", ("you", "have"): "you've", ("you", "will"): "you'll",
}  # fmt: skip
