"""The VideoMAE reference trainer: pre-training on pseudo-motion, fine-tuning, testing, and a probe that shows whether it learns.

An edge of the library, with an extra of its own: ``pip install '.[train]'`` in the repository. Its commands are ``pmg-pretrain``,
``pmg-finetune``, ``pmg-evaluate`` and ``pmg-validate``.
"""
