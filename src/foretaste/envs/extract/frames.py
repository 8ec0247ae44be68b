"""How plain messages are worded: sentence frames in three banks that share not one sentence.

A `Voice` is what one register says in one bank. Slots: {name}, {order} (a phrase such as "3 red
lamps"), {date}, and in corrections {items}, {wrong}, {colour}, {quantity}. Every frame is one or
more whole sentences with their own punctuation. Other registers: `voices.py`.
"""

from __future__ import annotations

from typing import NamedTuple

from foretaste.envs.seeds import Split


class Voice(NamedTuple):
    """The frames of one register in one bank."""

    greetings: tuple[str, ...]
    names: tuple[str, ...]
    """Who is speaking: {name}."""
    orders: tuple[str, ...]
    """What is wanted: {order}."""
    joint: tuple[str, ...]
    """Both in one sentence; may be empty."""
    closings: tuple[str, ...]
    dates: tuple[str, ...]
    wrong_quantity: tuple[str, ...]
    wrong_colour: tuple[str, ...]
    wrong_item: tuple[str, ...]
    idle: tuple[str, ...]
    """Beside the point, without any name, item, colour or number."""
    tempting: tuple[str, ...]
    """Beside the point, with {name} and {order} that must not be taken for the order."""


_TRAIN = Voice(
    greetings=("Hi.", "Hello.", "Hi there.", "Good morning.", "Hello there.", "Good afternoon.", "Hi team.",
               "Good day.", "Hello, shop.", "Hi again."),
    names=("My name is {name}.", "This is {name}.", "I am {name}.", "It's {name}.", "{name} here.",
           "The name is {name}.", "The order is for {name}.", "Please put it under {name}.", "My name's {name}.",
           "You can put it down as {name}.", "It goes under the name {name}.", "I'm {name}.",
           "Name on the order: {name}.", "Please book it for {name}."),
    orders=("I would like {order}.", "I'd like to order {order}.", "Please send me {order}.", "I need {order}.",
            "Can I get {order}?", "I want {order}.", "Could you send {order}?", "I'll take {order}.",
            "I want to buy {order}.", "Can I have {order}, please?", "Please set aside {order}.",
            "I am looking for {order}.", "Could I order {order}?", "I'd like {order}, please.",
            "Put me down for {order}.",
            "We need {order}.", "Please add {order} to my order.", "My order is {order}.", "Could you pack {order}?",
            "I want to order {order}.", "Please get me {order}.", "Can you send me {order}?"),
    joint=("This is {name} and I need {order}.", "{name} here, I would like {order}.", "I'm {name}, can I get {order}?",
           "My name is {name} and I want {order}.", "I need {order} for {name}.", "Please send {order} to {name}.",
           "{name} would like {order}.", "Can I order {order} under the name {name}?", "It's {name}, I'd like {order}.",
           "Please put {order} down for {name}.", "I'd like {order}, the name is {name}.",
           "An order for {name}: {order}.", "I am {name} and I'll take {order}.", "Could {name} get {order}?"),
    closings=("Thanks.", "Thank you.", "Thanks a lot.", "Many thanks.", "Thank you very much.", "Bye.",
              "Have a nice day.", "That is all.", "Thanks for your help.", "Talk soon."),
    dates=("I need it by {date}.", "Please deliver on {date}.", "It should arrive on {date}.", "Send it by {date}.",
           "The date is {date}.", "Delivery on {date}, please."),
    wrong_quantity=("No, make that {quantity} {items}.", "Sorry, I meant {quantity} {items}.",
                    "Actually, make it {quantity} {items}.", "Wait, I need {quantity} {items} instead."),
    wrong_colour=("No, make the {items} {colour}.", "Sorry, I want the {items} in {colour}.",
                  "Actually, {colour} for the {items}.", "Wait, the {items} should be {colour}."),
    wrong_item=("No, I meant {items}, not {wrong}.", "Sorry, {items} instead of {wrong}.",
                "Actually, not {wrong} but {items}.", "Wait, {items}, no {wrong}."),
    idle=("It is raining here.", "I love your shop.", "My phone is nearly empty.", "A friend told me about you.",
          "I am on the train.", "Sorry for the late message.", "The weather is lovely.", "I hope you are well.",
          "My dog is barking.", "I just got home.", "It was a long day.", "I found you online."),
    tempting=("Last time I ordered {order}.", "My friend {name} has {order} already.",
              "{name} told me about your shop.", "I do not need {order} this time."),
)  # fmt: skip

_PRACTICE = Voice(
    greetings=("Greetings.", "Hello everyone.", "Good evening.", "Hello to you all."),
    names=("You are talking to {name}.", "I go by {name}.", "{name} is my name.", "Write {name} on it.",
           "The customer is {name}.", "It will be picked up by {name}."),
    orders=("I could use {order}.", "Would you ship {order}?", "I wish to purchase {order}.", "Do reserve {order}.",
            "What I need is {order}.", "Let me have {order}.", "I'd be happy with {order}.", "Kindly prepare {order}."),
    joint=("{name} speaking, let me have {order}.", "I go by {name} and I could use {order}.",
           "Do reserve {order} for {name}.", "On behalf of {name}, I wish to purchase {order}.",
           "{name} wants to buy {order}.", "Ship {order} in the name of {name}."),
    closings=("Much appreciated.", "See you.", "Thanks in advance.", "All the best."),
    dates=("It has to be here by {date}.", "I will be home on {date}.", "Bring it on {date}."),
    wrong_quantity=("Hold on, it should be {quantity} {items}.", "I take that back, {quantity} {items}.",
                    "On second thought, {quantity} {items}."),
    wrong_colour=("Hold on, the {items} must be {colour}.", "I take that back, {colour} {items}.",
                  "On second thought, {items} in {colour}."),
    wrong_item=("Hold on, {items} rather than {wrong}.", "I said {wrong}, it should be {items}.",
                "On second thought, forget {wrong}, I want {items}."),
    idle=("Dinner is on the stove.", "We moved house this spring.", "My internet is slow.", "What a busy week.",
          "I read your leaflet.", "The children are asleep."),
    tempting=("My cousin {name} was pleased with you.", "We have {order} at home.", "A while ago I bought {order}."),
)  # fmt: skip

_SEALED = Voice(
    greetings=("Dear shop.", "Hello folks.", "Hi everybody.", "A good day to you."),
    names=("I'm called {name}.", "Make it out to {name}.", "Signed, {name}.", "{name} will collect it.",
           "You know me as {name}.", "The parcel is for {name}."),
    orders=("I am after {order}.", "Might I get {order}?", "I require {order}.", "I came for {order}.",
            "Do you sell {order}? I'll buy that.", "Give me {order}.", "Mark me down for {order}.",
            "My shopping list says {order}."),
    joint=("I'm called {name} and I am after {order}.", "{name} requires {order}.", "Make out {order} to {name}.",
           "Might {name} have {order}?", "Here is {name}, give me {order}.", "For {name} it will be {order}."),
    closings=("Cheers.", "Until then.", "I appreciate it.", "So long."),
    dates=("The latest day is {date}.", "I can collect it on {date}.", "We celebrate on {date}, so have it here then."),
    wrong_quantity=("Scratch that, {quantity} {items}.", "I misspoke, {quantity} {items} please.",
                    "Change that to {quantity} {items}."),
    wrong_colour=("Scratch that, the {items} in {colour}.", "I misspoke, {colour} {items} please.",
                  "Change the {items} to {colour}."),
    wrong_item=("Scratch the {wrong}, {items} it is.", "I misspoke, {items} and not {wrong}.",
                "Change {wrong} to {items}."),
    idle=("The bus was late.", "I sprained my ankle.", "Our garden is in bloom.", "It smells of coffee here.",
          "My sister visits soon.", "I nearly forgot to write."),
    tempting=("{name} from next door says hello.", "Once you sent me {order} by mistake.",
              "My brother got {order} there."),
)  # fmt: skip

PLAIN: dict[Split, Voice] = {"train": _TRAIN, "example": _TRAIN, "practice": _PRACTICE, "sealed": _SEALED}
