"""The trainer's commands in this process, which raise what a shell would only be told."""

from pseudomotion.train import evaluate as evaluation
from pseudomotion.train import finetune as finetuning
from pseudomotion.train import pretrain as pretraining
from pseudomotion.train.engine.options import parse
from pseudomotion.train.options import EvaluateOptions, FinetuneOptions, PretrainOptions


def pretrain(words):
    pretraining.run(parse(PretrainOptions, "pmg-pretrain", "", words))


def finetune(words):
    finetuning.run(parse(FinetuneOptions, "pmg-finetune", "", words))


def evaluate(words):
    evaluation.run(parse(EvaluateOptions, "pmg-evaluate", "", words))
