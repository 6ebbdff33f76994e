"""A decoder that Isthmus trained, as one PyTorch module, with the tensors under the names they were trained by.

Its layers are Llama's: RMSNorm, rotary attention, SwiGLU. What is not is the residual stream,

    x = base + z B' + rest

z, `rank` numbers per token, is what the first `factored_layers` layers of the codecs subspace and narrow write into; B
is U, a fixed basis, or, with narrow, the stage's own. rest is what others write, at full width. base is what every
stage knows without being told: the row of a fixed table E (not with the codecs identity, projection and top_k) and what
the stage's token path makes of the last tokens. The layers are cut into `stages`; the stream may lose something where
it crosses from one to the next.
"""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput


class IsthmusConfig(PretrainedConfig):
    model_type = "isthmus"

    def __init__(self, vocab_size=256, hidden_size=256, num_hidden_layers=8, num_attention_heads=4,
                 intermediate_size=704, max_position_embeddings=256, rms_norm_eps=1e-5, rope_theta=10000.0,
                 stages=((0, 8),), codec="subspace", rank=60, factored_layers=8, token_path="window", token_window=8,
                 token_width=32, **kwargs):
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.max_position_embeddings = max_position_embeddings
        self.rms_norm_eps = rms_norm_eps
        self.rope_theta = rope_theta
        self.stages = [list(stage) for stage in stages]
        self.codec = codec
        self.rank = rank
        self.factored_layers = factored_layers
        self.token_path = token_path
        self.token_window = token_window
        self.token_width = token_width
        super().__init__(**kwargs)

    @property
    def is_ordinary(self):
        """One stream at full width, which starts from the learned table and keeps what a token path adds."""
        return self.codec in ("identity", "projection", "top_k")

    @property
    def has_coefficients(self):
        return self.codec in ("subspace", "narrow")

    @property
    def has_learned_borders(self):
        return self.codec in ("bottleneck", "learned")

    @property
    def has_fixed_basis(self):
        return self.codec in ("subspace", "projected", "projection")


class Tensors(nn.Module):
    """Parameters by name."""

    def __init__(self, **shapes):
        super().__init__()
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape)))


def rms_norm(x, weight, epsilon):
    wide = x.float()
    return (weight.float() * wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)).to(weight.dtype)


def rotate_half(x):
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


class IsthmusForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = IsthmusConfig

    def __init__(self, config):
        super().__init__(config)
        c = config
        d, m, k, v = c.hidden_size, c.intermediate_size, c.rank, c.vocab_size
        firsts = [first for first, _ in c.stages]
        self.embedding = Tensors(table=(v, k if c.has_coefficients else d))
        self.layer = nn.ModuleList()
        for l in range(c.num_hidden_layers):
            written = k if c.has_coefficients and l < c.factored_layers else d
            self.layer.append(Tensors(attention_norm=(d,), qkv=(3 * d, d), attention_out=(written, d), mlp_norm=(d,),
                                      gate_up=(2 * m, d), down=(written, m)))
        self.head = Tensors(norm=(d,), matrix=(v, d))
        self.token_path = nn.ModuleDict()
        for first in firsts[1:]:
            if c.token_path == "table":
                self.token_path[str(first)] = Tensors(table=(v, d))
            if c.token_path == "window":
                r, w = c.token_width, c.token_window
                self.token_path[str(first)] = Tensors(**{"table": (v, r), "in": (d, w * r), "out": (d, d)})
        if c.codec == "narrow":
            self.basis = nn.ModuleDict({str(first): Tensors(matrix=(d, k)) for first in firsts})
        if c.has_learned_borders:
            self.border = nn.ModuleDict({
                str(at): nn.ModuleDict({"encoder": Tensors(matrix=(d, k)), "decoder": Tensors(matrix=(d, k))})
                for at in firsts[1:]})
        # Never trained: they follow from the run's seed.
        fixed = {}
        if c.has_fixed_basis:
            fixed["basis"] = (d, k)
        if not c.is_ordinary:
            fixed["embedding"] = (v, d)
        self.fixed = Tensors(**fixed)
        self.fixed.requires_grad_(False)
        self.post_init()

    def attention(self, x, qkv):
        batch, length, width = x.shape
        size = width // self.config.num_attention_heads
        q, k, v = (t.view(batch, length, -1, size).transpose(1, 2) for t in F.linear(x, qkv).split(width, dim=-1))
        theta = self.config.rope_theta ** (-torch.arange(0, size, 2, dtype=torch.float64, device=x.device) / size)
        angle = torch.outer(torch.arange(length, dtype=torch.float64, device=x.device), theta).repeat(1, 2)
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        q, k = (t * cos + rotate_half(t) * sin for t in (q, k))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(batch, length, width)

    def mlp(self, x, gate_up):
        gate, up = F.linear(x, gate_up).chunk(2, dim=-1)
        return F.silu(gate) * up

    def tokens_seen(self, first, ids):
        """What the token path of the stage that begins with layer `first` adds; the first stage has none."""
        if str(first) not in self.token_path:
            return 0
        path = self.token_path[str(first)]
        rows = path.table[ids]
        if self.config.token_path == "table":
            return rows
        # The j-th of the window's tokens is j places back; before the sequence there is nothing.
        window = [F.pad(rows, (0, 0, back, 0))[:, : ids.shape[1]] for back in range(self.config.token_window)]
        return F.linear(F.gelu(F.linear(torch.cat(window, dim=-1), getattr(path, "in")), approximate="tanh"), path.out)

    def crossed(self, at, rest):
        """What is left of the full-width stream behind the cut before layer `at`."""
        if self.config.codec in ("projected", "projection"):
            return rest @ self.fixed.basis @ self.fixed.basis.T
        if self.config.has_learned_borders:
            border = self.border[str(at)]
            return rest @ border["encoder"].matrix @ border["decoder"].matrix.T
        if self.config.codec == "top_k":
            kept = rest.abs().topk(self.config.rank, dim=-1).indices
            return torch.zeros_like(rest).scatter(-1, kept, rest.gather(-1, kept))
        return rest

    def forward(self, input_ids, attention_mask=None, labels=None, **unused):
        c = self.config
        if attention_mask is not None and not bool(attention_mask.all()):
            raise ValueError("this model knows no padding: expected sequences of one length, or one at a time")
        z, rest = 0, 0
        if c.has_coefficients:
            z = self.embedding.table[input_ids]
        else:
            rest = self.embedding.table[input_ids]
        for first, end in c.stages:
            if first > 0 and not c.has_coefficients:
                rest = self.crossed(first, rest)
            base = self.tokens_seen(first, input_ids)
            if c.is_ordinary:
                rest, base = rest + base, 0
            else:
                base = base + self.fixed.embedding[input_ids]
            if c.has_coefficients:
                basis = self.basis[str(first)].matrix if c.codec == "narrow" else self.fixed.basis

            def stream():
                return base + rest + (F.linear(z, basis) if c.has_coefficients else 0)

            for l in range(first, end):
                w = self.layer[l]
                parts = ((self.attention, w.attention_norm, w.qkv, w.attention_out),
                         (self.mlp, w.mlp_norm, w.gate_up, w.down))
                for part, norm, inner, outer in parts:
                    written = F.linear(part(rms_norm(stream(), norm, c.rms_norm_eps), inner), outer)
                    if c.has_coefficients and l < c.factored_layers:
                        z = z + written
                    else:
                        rest = rest + written
        logits = F.linear(rms_norm(stream(), self.head.norm, c.rms_norm_eps), self.head.matrix)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        return CausalLMOutput(loss=loss, logits=logits)

    def prepare_inputs_for_generation(self, input_ids, attention_mask=None, **unused):
        # Every token is computed from the last max_position_embeddings anew: nothing is cached.
        at = -self.config.max_position_embeddings
        return {"input_ids": input_ids[:, at:],
                "attention_mask": None if attention_mask is None else attention_mask[:, at:]}
