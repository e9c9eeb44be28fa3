"""A minimal multimodal GPT: GPT-2 and ViT from one Transformer block; GPT-2 describes what ViT encodes."""

from mingpt_mm.model.gpt import GPT, GPTConfig
from mingpt_mm.model.multimodal import MultimodalGPT
from mingpt_mm.model.vit import ViT, ViTConfig
from mingpt_mm.training import load_run
