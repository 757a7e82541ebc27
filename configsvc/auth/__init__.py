"""Rights: users, roles, spans, policy rules; principal, action and span become a decision.

``state`` holds everything, ``decide`` judges, ``standing`` says whether the asker is still who it
was proven to be, ``explain`` accounts. ``bundle`` and ``policy_tests`` are for the edge only.
"""
