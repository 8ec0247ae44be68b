"""What customers write to `route`: three banks that share no sentence and no thing.

A message is one complaint of the right queue, with parts around it drawn independently of it.
{thing} is something that a shop sells.
"""

from __future__ import annotations

from typing import NamedTuple

from foretaste.envs.seeds import Split

QUEUES = ("billing", "delivery", "returns", "account", "technical", "sales")


class Bank(NamedTuple):
    """The sentences of one bank."""

    complaints: dict[str, tuple[str, ...]]
    """Queue -> sentences that belong to it and to no other."""
    settled: dict[str, tuple[str, ...]]
    """Queue -> sentences about something of that queue which needs no more help."""
    openings: tuple[str, ...]
    asides: tuple[str, ...]
    """Sentences that belong to no queue."""
    closings: tuple[str, ...]
    things: tuple[str, ...]


_TRAIN = Bank(
    complaints={
        "billing": ("I was charged twice for the {thing}.", "My invoice for the {thing} is wrong.",
                    "Why was money taken from my card twice?", "The bill is higher than the price you showed.",
                    "I need a copy of my invoice.", "My credit card was debited but I have no receipt.",
                    "You billed me for a {thing} that I did not buy.", "The tax on my bill looks wrong."),
        "delivery": ("My {thing} has not arrived.", "Where is my parcel?", "The tracking has not moved for days.",
                     "The driver left my {thing} at a wrong door.", "When will my {thing} be delivered?",
                     "The courier never came.", "My package seems to be lost.", "The shipment of the {thing} is late."),
        "returns": ("I want to send the {thing} back.", "The {thing} does not fit and I want to return it.",
                    "How do I return a {thing}?", "The {thing} is not what I expected, please take it back.",
                    "I need a return label for the {thing}.", "Can I exchange the {thing} for another?",
                    "I changed my mind about the {thing} and want to give it back.",
                    "Where do I send a {thing} back to?"),
        "account": ("I forgot my password.", "I cannot log in.", "Please change my e-mail address.",
                    "How do I delete my profile?", "My login is locked.", "I want to change my user name.",
                    "Somebody else is using my login.", "I never got the link to reset my password."),
        "technical": ("The app crashes when I open it.", "The website shows an error.", "The page does not load.",
                      "A button in the app does nothing.", "The search on your site is broken.",
                      "The app freezes on the first screen.", "The video on your page does not play.",
                      "Your site is not working in my browser."),
        "sales": ("Do you have a {thing} in stock?", "How much is the {thing}?", "Is there a discount on the {thing}?",
                  "I would like to buy a {thing}, what do you suggest?", "Which {thing} is best for a beginner?",
                  "Do you sell a larger {thing}?", "What colours does the {thing} come in?",
                  "Can I get an offer for ten of the {thing}?"),
    },
    settled={
        "billing": ("The invoice was fine.", "My card was charged correctly."),
        "delivery": ("The parcel came on time.", "The driver was very kind."),
        "returns": ("I do not want to send anything back.", "My last return went well."),
        "account": ("Logging in works.", "My password is fine."),
        "technical": ("Your website is fast.", "The app runs well."),
        "sales": ("I do not want to buy anything else.", "The price was good."),
    },
    openings=("Hello.", "Hi.", "Good morning.", "Hi there.", "Dear team.", "Good afternoon.", "Hello there.",
              "Hi again."),
    asides=("I have been a customer for years.", "I am writing from my phone.", "I hope you are well.",
            "This is my first message to you.", "I asked my neighbour first.", "It is a busy week for me."),
    closings=("Thanks.", "Thank you.", "Please help.", "Many thanks.", "Best wishes.", "Please answer soon."),
    things=("lamp", "chair", "jacket", "kettle", "backpack", "desk", "toaster", "carpet", "mirror", "blanket", "watch",
            "printer", "camera", "tent", "pan", "sofa"),
)  # fmt: skip

_PRACTICE = Bank(
    complaints={
        "billing": ("There are two payments for the same {thing} on my statement.",
                    "The amount on the invoice does not match the {thing}.", "I paid but it still says unpaid.",
                    "Please correct the billing address on my invoice."),
        "delivery": ("I am still waiting for the {thing} you posted.", "The postman says there is nothing for me.",
                     "My order was shipped two weeks ago and is not here.",
                     "Can the {thing} be brought on Friday instead?"),
        "returns": ("I'd like to hand the {thing} back.", "The {thing} is too small, how can I return it?",
                    "Please pick up the {thing}, I do not want to keep it.", "Is it too late to return my {thing}?"),
        "account": ("My password is not accepted.", "I want to close my account.", "The sign-in code never reaches me.",
                    "I have a new e-mail, please update my profile."),
        "technical": ("Your app stops by itself.", "I only see a blank page on your site.",
                      "The menu on the website does not open.", "I get an error message when I upload a photo."),
        "sales": ("Would you have a {thing} for a small room?", "What does a {thing} cost?",
                  "Will the {thing} be on offer soon?", "I am choosing between a {thing} and another, please advise."),
    },
    settled={
        "billing": ("The payment went through well.",), "delivery": ("It was delivered quickly.",),
        "returns": ("I am keeping what I bought.",), "account": ("I could sign in.",),
        "technical": ("The site works.",), "sales": ("I have bought enough for now.",),
    },
    openings=("Greetings.", "Good evening.", "Hello everyone.", "Excuse me."),
    asides=("My holidays start tomorrow.", "My sister recommended you.", "I could not find this in your leaflet.",
            "I write on behalf of my mother."),
    closings=("Much appreciated.", "Thanks in advance.", "I look forward to your reply.", "Yours."),
    things=("bicycle", "guitar", "heater", "suitcase", "blender", "bookcase", "helmet", "rug"),
)  # fmt: skip

_SEALED = Bank(
    complaints={
        "billing": ("My bank shows a double charge from you.", "I was invoiced for one {thing} too many.",
                    "Could you send the receipt for the {thing} again?",
                    "The sum you withdrew is not what I agreed to."),
        "delivery": ("The {thing} should have been here on Monday.", "My parcel is stuck at the depot.",
                     "The courier took the {thing} away again.", "The tracking number you gave me leads nowhere."),
        "returns": ("The {thing} goes back, please tell me how.", "I regret the {thing} and wish to return it.",
                    "Can I swap my {thing} for a different size?",
                    "I packed the {thing} up again, where is the return slip?"),
        "account": ("It says my user name does not exist.", "Please remove my personal data and profile.",
                    "I am locked out after three tries.", "How can I set another password?"),
        "technical": ("Your page hangs forever.", "The app will not start after the update.",
                      "Pictures on your site do not appear.", "The website throws me an error 500."),
        "sales": ("Could you recommend a {thing}?", "At what price do you sell the {thing}?",
                  "When is the {thing} available again?", "Is a {thing} cheaper if I take three?"),
    },
    settled={
        "billing": ("The receipt is all right.",), "delivery": ("The box reached me unharmed.",),
        "returns": ("Nothing has to go back.",), "account": ("My profile is as it should be.",),
        "technical": ("The app is pleasant to use.",), "sales": ("I need no advice on what to buy.",),
    },
    openings=("Dear shop.", "A good day to you.", "Hello folks.", "Hey."),
    asides=("The weather has been awful.", "I sit in a noisy cafe.", "A colleague gave me your address.",
            "I moved to the coast in spring."),
    closings=("Cheers.", "Until soon.", "Warm regards.", "So long."),
    things=("telescope", "piano", "freezer", "hammock", "stroller", "wardrobe", "drill", "violin"),
)  # fmt: skip

BANKS: dict[Split, Bank] = {"train": _TRAIN, "example": _TRAIN, "practice": _PRACTICE, "sealed": _SEALED}
