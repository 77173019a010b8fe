"""LiveRow: what a worker keeps of one live request, from which it makes the request's chunks. Worker thread only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from periscope.core import FinishReason
from periscope.engine.worker.reports import TokenChunk

if TYPE_CHECKING:
    from periscope.engine.text.detokenizer import Detokenizer, StopStrings
    from periscope.engine.worker.contracts import Sampled
    from periscope.engine.worker.stream import TokenStream


@dataclass(slots=True)
class LiveRow:
    """What the worker keeps for one live request."""

    stream: TokenStream
    detokenizer: Detokenizer
    stops: StopStrings

    def chunk(self, sampled: Sampled) -> TokenChunk:
        """Decode one sampled token. Stop strings are matched here, so they end the row even if the batch goes on."""
        reason = sampled.finish_reason
        text = "" if sampled.is_eos else self.stops.feed(self.detokenizer.feed(sampled.token_id))
        if reason is not None and not self.stops.is_hit:
            text += self.stops.feed(self.detokenizer.finish())
            text += self.stops.finish()
        if self.stops.is_hit:
            reason = FinishReason.STOP
        return TokenChunk(
            text=text,
            token_ids=() if sampled.is_eos else (sampled.token_id,),
            num_tokens=1,
            num_cached_tokens=sampled.num_cached_tokens,
            num_accepted=sampled.num_accepted,
            num_rejected=sampled.num_rejected,
            logprobs=() if sampled.logprob is None or sampled.is_eos else (sampled.logprob,),
            prompt_logprobs=sampled.prompt_logprobs,
            finish_reason=reason,
            vectors=sampled.vectors,
        )
