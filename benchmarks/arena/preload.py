"""Imported by the process that all others are copies of, so that none imports the libraries again."""

import torch

from . import libraries

torch.set_num_threads(1)
libraries.preload()
