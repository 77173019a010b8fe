"""Configuration: models.yaml, environment and flags -> one frozen `Config`, or every problem with its line.

The only reader of YAML and of the environment. Rooms below never import it: the composition root translates.
"""

from periscope.config.keys import json_schema
from periscope.config.layers import FLAGS, env_names
from periscope.config.load import Config, find_file, load, user_file
from periscope.config.mcp_schema import McpServerConfig
from periscope.config.missing_files import missing_folders
from periscope.config.params_schema import DType, ModelParams, SamplingParams, VariantConfig
from periscope.config.places import Places
from periscope.config.quantities import parse_bytes
from periscope.config.report import describe, with_models_of
from periscope.config.schema import (
    CaptionCacheConfig,
    LogConfig,
    MemoryConfig,
    ModelConfig,
    PromptCacheConfig,
    RemoteImagesConfig,
    ResponsesConfig,
    ServerConfig,
    ServerLimits,
    TLSConfig,
)
from periscope.config.starter import estimated_budget, fitting, starter_file
from periscope.config.vision_schema import Capabilities, RemoteConfig, VisionProxyConfig

__all__ = [
    "FLAGS",
    "Capabilities",
    "CaptionCacheConfig",
    "Config",
    "DType",
    "LogConfig",
    "McpServerConfig",
    "MemoryConfig",
    "ModelConfig",
    "ModelParams",
    "Places",
    "PromptCacheConfig",
    "RemoteConfig",
    "RemoteImagesConfig",
    "ResponsesConfig",
    "SamplingParams",
    "ServerConfig",
    "ServerLimits",
    "TLSConfig",
    "VariantConfig",
    "VisionProxyConfig",
    "describe",
    "env_names",
    "estimated_budget",
    "find_file",
    "fitting",
    "json_schema",
    "load",
    "missing_folders",
    "parse_bytes",
    "starter_file",
    "user_file",
    "with_models_of",
]
