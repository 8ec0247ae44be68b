"""The other registers of `extract`: frames of their own in each bank, or an effect upon plain frames.

| register | what changes |
|---|---|
| casual, terse, formal, polite, chinese | the frames (Chinese ones around an English payload) |
| typos | letters of plain frames are swapped, dropped or doubled, never in the payload |
| emoji | emoji between plain sentences |
| distractor | one more sentence without name, item, colour or number |

The payload (name, order phrase, date) of an item is the same text in every register.
"""

from __future__ import annotations

import random

from foretaste.envs.extract.frames import PLAIN, Voice
from foretaste.envs.extract.words import PAYLOAD_WORDS
from foretaste.envs.seeds import Split

_T, _P, _S = PLAIN["train"], PLAIN["practice"], PLAIN["sealed"]

_CASUAL = (
    _T._replace(
        greetings=("hey,", "heyy", "yo,", "hiya,", "hey hey,"),
        names=("{name} here btw.", "it's {name} lol.", "name's {name} ok?", "i'm {name}!", "{name} again haha."),
        orders=("gimme {order} pls.", "can i grab {order}?", "so i kinda need {order}.", "just {order} for me.",
                "wanna get {order}.", "any chance i could get {order}?"),
        joint=("{name} here, gimme {order} pls.", "it's {name}, can i grab {order}?", "{order} for {name} pls."),
        closings=("thx!", "ty!", "thanks a bunch!", "later!", "cya."),
    ),
    _P._replace(
        greetings=("sup,", "hullo,", "oi,"),
        names=("you know me, {name}.", "stick {name} on it.", "signed {name}, hah."),
        orders=("set me up with {order}.", "i'm dying for {order}!", "could do with {order} tbh."),
        joint=("set {name} up with {order}.", "{name} could do with {order} tbh."),
        closings=("you rock!", "tyvm.", "ta!"),
    ),
    _S._replace(
        greetings=("ahoy,", "howdy,", "heya,"),
        names=("{name} on the line.", "slap {name} on the box.", "ya boy {name}."),
        orders=("toss me {order}.", "lemme get {order}.", "thinking {order} would be sweet."),
        joint=("lemme get {order}, name of {name}.", "toss {name} some stuff: {order}."),
        closings=("peace.", "legends, all of you.", "byeee."),
    ),
)  # fmt: skip

_TERSE = (
    _T._replace(
        greetings=("Order:", "New order."),
        names=("{name}.", "Name: {name}.", "For: {name}.", "Customer {name}."),
        orders=("{order}.", "Need {order}.", "Send {order}.", "Item: {order}.", "Want {order}."),
        joint=("{name}: {order}.", "{order}, {name}.", "{name}, {order}."),
        closings=("End.", "Ok.", "Soon please."),
    ),
    _P._replace(
        greetings=("Request.", "Purchase:"),
        names=("By {name}.", "Buyer {name}.", "= {name}."),
        orders=("Ship {order}.", "Get {order}.", "Buying {order}."),
        joint=("{name} / {order}.", "Buyer {name}, ship {order}."),
        closings=("Done.", "Over."),
    ),
    _S._replace(
        greetings=("Memo.", "List:"),
        names=("To {name}.", "Recipient {name}.", "c/o {name}."),
        orders=("Require {order}.", "+ {order}.", "Fetch {order}."),
        joint=("{name} > {order}.", "Recipient {name}, require {order}."),
        closings=("Stop.", "Finished."),
    ),
)

_FORMAL = (
    _T._replace(
        greetings=("Dear Sir or Madam,", "To whom it may concern,", "Dear customer service,"),
        names=("My name is {name} and I am writing to place an order.", "The order shall be registered to {name}.",
               "I write on behalf of {name}.", "The undersigned is {name}."),
        orders=("I hereby order {order}.", "I wish to place an order for {order}.", "We request delivery of {order}.",
                "The order consists of {order}."),
        joint=("I, {name}, hereby order {order}.", "Kindly register an order of {order} to {name}."),
        closings=("Yours faithfully.", "Kind regards.", "Sincerely."),
    ),
    _P._replace(
        greetings=("Dear sales department,", "Esteemed colleagues,"),
        names=("Please note the purchaser as {name}.", "This letter is sent by {name}."),
        orders=("It is my intention to acquire {order}.", "Please process a purchase of {order}."),
        joint=("On the account of {name}, please process a purchase of {order}.",
               "It is the intention of {name} to acquire {order}."),
        closings=("With best regards.", "Respectfully yours."),
    ),
    _S._replace(
        greetings=("Dear management,", "Honoured merchants,"),
        names=("The party concerned is {name}.", "The goods are to be consigned to {name}."),
        orders=("You are requested to supply {order}.", "We hereby commission {order}."),
        joint=("You are requested to supply {name} with {order}.", "{name} hereby commissions {order}."),
        closings=("Yours truly.", "With esteem."),
    ),
)  # fmt: skip

_POLITE = (
    _T._replace(
        greetings=("Hello, I hope you are having a good day.", "Good morning, sorry to trouble you.",
                   "Hello, if I may."),
        names=("My name is {name}, if that helps.", "It would be for {name}, please.",
               "I am {name}, nice to meet you."),
        orders=("Could I please have {order}, if possible?", "Would you mind sending me {order}?",
                "I would be grateful for {order}.", "May I please order {order}?"),
        joint=("Would you be so kind as to send {name} {order}?", "May I, {name}, please order {order}?"),
        closings=("Thank you so much for your time.", "I really appreciate your help.", "Thank you kindly."),
    ),
    _P._replace(
        greetings=("Pardon the interruption.", "Hello, I hope this finds you well."),
        names=("If you need a name, {name} will do.", "You may kindly write {name}."),
        orders=("Might I trouble you for {order}?", "If it is no bother, I would love {order}."),
        joint=("Might I trouble you for {order} under {name}?", "If it is no bother, {name} would love {order}."),
        closings=("That is very kind of you.", "I am much obliged."),
    ),
    _S._replace(
        greetings=("Forgive me for writing.", "Hello, whenever you have a moment."),
        names=("Should a name be wanted, it is {name}.", "With your permission, {name}."),
        orders=("It would be lovely to receive {order}.", "Do you think I could have {order}?"),
        joint=("It would be lovely if {name} could receive {order}.", "Do you think {name} could have {order}?"),
        closings=("You are most kind.", "Please take your time."),
    ),
)  # fmt: skip

_CHINESE = (
    Voice(
        greetings=("你好。", "您好。", "早上好。"),
        names=("我是{name}。", "我叫{name}。", "订单写{name}。"),
        orders=("我要{order}。", "我想买{order}。", "请给我{order}。", "我想订{order}。"),
        joint=("我是{name}，我要{order}。", "请给{name}发{order}。"),
        closings=("谢谢。", "再见。"),
        dates=("请在 {date} 送到。", "日期是 {date}。"),
        wrong_quantity=("不对，是 {quantity} {items}。", "等等，改成 {quantity} {items}。"),
        wrong_colour=("不对，{items} 要 {colour}。", "等等，{items} 改成 {colour}。"),
        wrong_item=("不对，不是 {wrong}，是 {items}。", "等等，{wrong} 改成 {items}。"),
        idle=("今天下雨。", "我喜欢你们的店。"),
        tempting=("我的朋友 {name} 已经有 {order} 了。", "上次我买了 {order}。"),
    ),
    Voice(
        greetings=("大家好。", "晚上好。"),
        names=("顾客是{name}。", "请写{name}的名字。"),
        orders=("我需要{order}。", "麻烦寄{order}。"),
        joint=("{name}需要{order}。", "麻烦寄{order}给{name}。"),
        closings=("多谢。", "辛苦了。"),
        dates=("{date} 之前要。", "我 {date} 在家。"),
        wrong_quantity=("说错了，应该是 {quantity} {items}。", "重新说，{quantity} {items}。"),
        wrong_colour=("说错了，{items} 应该是 {colour}。", "重新说，{colour} {items}。"),
        wrong_item=("说错了，{wrong} 应该是 {items}。", "重新说，不要 {wrong}，要 {items}。"),
        idle=("这周很忙。", "网络很慢。"),
        tempting=("我的表哥 {name} 很满意。", "我们家里有 {order}。"),
    ),
    Voice(
        greetings=("店家好。", "下午好。"),
        names=("收件人是{name}。", "名字：{name}。"),
        orders=("给我来{order}。", "我打算订购{order}。"),
        joint=("{name}打算订购{order}。", "收件人{name}，来{order}。"),
        closings=("拜拜。", "感谢。"),
        dates=("最晚 {date}。", "我 {date} 来取。"),
        wrong_quantity=("我弄错了，{quantity} {items}。", "更正：{quantity} {items}。"),
        wrong_colour=("我弄错了，{items} 是 {colour}。", "更正：{items}，{colour}。"),
        wrong_item=("我弄错了，是 {items}，没有 {wrong}。", "更正：{wrong} 换成 {items}。"),
        idle=("公交车晚点了。", "花园开花了。"),
        tempting=("邻居 {name} 问你们好。", "我哥哥在那里买了 {order}。"),
    ),
)

_OWN_FRAMES = {"casual": _CASUAL, "terse": _TERSE, "formal": _FORMAL, "polite": _POLITE, "chinese": _CHINESE}

REGISTERS = ("plain", *_OWN_FRAMES, "typos", "emoji", "distractor")

EMOJI: dict[Split, str] = {"train": "🙂😀👍🎉😊", "example": "🙂😀👍🎉😊", "practice": "😅🙏✨😎", "sealed": "🤗🌟💛🥳"}


def voice_of(register: str, split: Split) -> Voice:
    """Return the frames of a register in the bank of a split."""
    if register not in _OWN_FRAMES:
        return PLAIN[split]
    train, practice, sealed = _OWN_FRAMES[register]
    return {"train": train, "example": train, "practice": practice, "sealed": sealed}[split]


def misspell(frame: str, random: random.Random) -> str:
    """Return the frame with one or two slips of the finger in its longer words; slots are left alone.

    A slip that would make a word of the payload ("read" to "red", "then" to "ten") is not made.
    """
    words = frame.split(" ")
    open_to_slips = [i for i, word in enumerate(words) if "{" not in word and sum(map(str.isalpha, word)) >= 4]
    for index in random.sample(open_to_slips, min(len(open_to_slips), random.choice((1, 2)))):
        word = words[index]
        place = random.randrange(1, sum(map(str.isalpha, word)) - 1)
        slip = random.choice(
            (
                word[:place] + word[place + 1] + word[place] + word[place + 2 :],
                word[:place] + word[place + 1 :],
                word[:place] + word[place] + word[place:],
            )
        )
        if "".join(filter(str.isalpha, slip)).lower() not in PAYLOAD_WORDS:
            words[index] = slip
    return " ".join(words)
