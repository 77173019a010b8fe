"""A conversation of two turns, without async: python examples/chat.py."""

from __future__ import annotations

from periscope import Message, Role, TextPart
from periscope.sync import Periscope

with Periscope() as periscope:  # the models.yaml that `periscope serve` reads
    conversation = [Message(Role.USER, (TextPart("Hello!"),))]
    answer = periscope.chat(conversation)
    print(answer.text)
    conversation += [answer.message, Message(Role.USER, (TextPart("What can you do?"),))]
    print(periscope.chat(conversation).text)
