"""The nouns every room shares: messages, parameters, output events. Frozen, plain data, no behaviour beyond checks.

Nothing here knows HTTP, MLX or Pillow. All of it may cross threads.
"""

from periscope.core.messages import (
    Image,
    ImagePart,
    Message,
    Part,
    Role,
    TextPart,
    ToolCall,
)
from periscope.core.models import (
    MODEL_FILES,
    NOT_MODEL_FILES,
    Footprint,
    ModelCard,
    ModelKind,
    ModelState,
    VisionMode,
)
from periscope.core.naming import (
    DEFAULT_NAME,
    find_model,
    is_default_name,
    require_model,
)
from periscope.core.origins import (
    AllowedOrigins,
    OriginPattern,
)
from periscope.core.output import (
    CaptionedImage,
    EndReason,
    Finished,
    FinishReason,
    OutputEvent,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    TokenText,
    ToolCallDelta,
    ToolCallStart,
    Usage,
    VisionUsage,
    Waiting,
    WaitStatus,
)
from periscope.core.output_spec import ConstraintKind, OutputSpec
from periscope.core.params import (
    MAX_LOGIT_BIAS,
    MAX_LOGIT_BIAS_ENTRIES,
    MAX_STOP_LENGTH,
    MAX_STOP_STRINGS,
    GenerationParams,
)
from periscope.core.request import (
    MAX_CHOICES,
    GenerationRequest,
    new_id,
)
from periscope.core.tools import (
    JSONObject,
    OutputFormat,
    ParseToolCall,
    ResponseFormat,
    Tool,
    ToolCallStyle,
    ToolChoice,
    ToolChoiceMode,
)

__all__ = [
    "DEFAULT_NAME",
    "MAX_CHOICES",
    "MAX_LOGIT_BIAS",
    "MAX_LOGIT_BIAS_ENTRIES",
    "MAX_STOP_LENGTH",
    "MAX_STOP_STRINGS",
    "MODEL_FILES",
    "NOT_MODEL_FILES",
    "AllowedOrigins",
    "CaptionedImage",
    "ConstraintKind",
    "EndReason",
    "FinishReason",
    "Finished",
    "Footprint",
    "GenerationParams",
    "GenerationRequest",
    "Image",
    "ImagePart",
    "JSONObject",
    "Message",
    "ModelCard",
    "ModelKind",
    "ModelState",
    "OriginPattern",
    "OutputEvent",
    "OutputFormat",
    "OutputSpec",
    "ParseToolCall",
    "Part",
    "ReasoningDelta",
    "ResponseFormat",
    "Role",
    "TextDelta",
    "TextPart",
    "TokenLogprob",
    "TokenText",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolCallStart",
    "ToolCallStyle",
    "ToolChoice",
    "ToolChoiceMode",
    "Usage",
    "VisionMode",
    "VisionUsage",
    "WaitStatus",
    "Waiting",
    "find_model",
    "is_default_name",
    "new_id",
    "require_model",
]
