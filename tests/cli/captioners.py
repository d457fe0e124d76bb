"""Tiny random models that make text of images, saved as `exmem caption` loads them."""

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    CLIPImageProcessor,
    GitConfig,
    GitForCausalLM,
    GitProcessor,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTImageProcessor,
)

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "temple", "flower", "red", "roof", "leaf", "stone"]
WORDS += ["write", "a", "short", "description", "for", "the", "image", "."]
SIZES = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64, "num_hidden_layers": 2}
SEEN = {"image_size": 32, "patch_size": 8}
ENDS = {"bos_token_id": 5, "eos_token_id": 3, "pad_token_id": 0, "sep_token_id": 3}
PIXELS = {"size": {"height": 32, "width": 32}}


def _word_pieces(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = BertTokenizer(str(folder / "vocab.txt"))
    tokenizer.add_special_tokens({"additional_special_tokens": ["[DEC]"]})
    return tokenizer


def _sentence_pieces():
    """A tokenizer as decoders have it: a first token, no last one, an image token and a template of a chat."""
    words = ["<pad>", "<unk>", "<s>", "</s>", *WORDS[6:], "Write", "ASK", "ANSWER"]
    inner = Tokenizer(WordLevel({word: at for at, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = Whitespace()
    inner.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 2)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    return tokenizer


def _blip(folder):
    model = BlipForConditionalGeneration(
        BlipConfig(
            text_config=SIZES | ENDS | {"vocab_size": len(WORDS), "encoder_hidden_size": 32},
            vision_config=SIZES | SEEN,
            projection_dim=16,
        )
    )
    return model, BlipProcessor(BlipImageProcessor(**PIXELS), _word_pieces(folder))


def _git(folder):
    config = GitConfig(vision_config=SIZES | SEEN, vocab_size=len(WORDS), **SIZES, **ENDS | {"bos_token_id": 2})
    return GitForCausalLM(config), GitProcessor(
        CLIPImageProcessor(**PIXELS, do_center_crop=False), _word_pieces(folder)
    )


def _towers(folder):
    decoder = BertConfig(**SIZES, vocab_size=len(WORDS), is_decoder=True, add_cross_attention=True)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(**SIZES, **SEEN), decoder)
    model = VisionEncoderDecoderModel(config)
    model.generation_config.update(decoder_start_token_id=2, eos_token_id=3, pad_token_id=0)
    _word_pieces(folder).save_pretrained(folder)
    ViTImageProcessor(**PIXELS).save_pretrained(folder)
    return model, None


def _instructed(folder):
    tokenizer = _sentence_pieces()
    llama = {
        "model_type": "llama",
        "vocab_size": len(tokenizer),
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
    }
    former = SIZES | {"vocab_size": len(WORDS), "encoder_hidden_size": 32, "cross_attention_frequency": 1}
    model = InstructBlipForConditionalGeneration(
        InstructBlipConfig(
            vision_config=SIZES | SEEN,
            qformer_config=former,
            text_config=SIZES | llama,
            num_query_tokens=4,
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        )
    )
    processor = InstructBlipProcessor(
        BlipImageProcessor(**PIXELS), tokenizer, _word_pieces(folder / "words"), num_query_tokens=4
    )
    return model, processor


def _chatting(folder):
    tokenizer = _sentence_pieces()
    tokenizer.image_token = "<image>"
    llama = {"model_type": "llama", "vocab_size": len(tokenizer), "num_key_value_heads": 2}
    vision = {"model_type": "clip_vision_model", "projection_dim": 16}
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=SIZES | SEEN | vision,
            text_config=SIZES | llama,
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        )
    )
    template = (
        "{% for message in messages %}ASK {% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}ANSWER"
    )
    processor = LlavaProcessor(
        CLIPImageProcessor(**PIXELS, crop_size=PIXELS["size"]),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=template,
        image_token="<image>",
        num_additional_image_tokens=1,
    )
    return model, processor


KINDS = {"blip": _blip, "git": _git, "towers": _towers, "instructed": _instructed, "chatting": _chatting}


def write_captioner(kind, folder):
    """Write a model and what prepares its input; return the folder."""
    torch.manual_seed(0)
    model, processor = KINDS[kind](folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        if kind == "blip":  # it says something of every image
            model.text_decoder.cls.predictions.bias[:6] = -100
    model.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    return folder
