"""The record: what a leaf says, the tree it goes into, signed heads, and the offline verifier.

``record`` builds leaves inside apply, ``local`` those of one member's own stream; ``verify`` needs
nothing but an export and pinned keys.
"""
