"""``pmg-validate``: what is pre-training on pseudo-motion worth? The shipped trainer on small models, in minutes to hours.

``options`` lists what is compared, ``trial`` pre-trains one encoder and measures it, ``direction`` asks a frozen encoder how real videos
move, ``report`` writes the results, and ``command`` puts them together. Not from the paper.
"""
