// Vercel's AI SDK, by the argument with its provider for OpenAI-compatible servers, for OpenAI or for Anthropic.
import { ABOUT_PICTURE, BASE_URL, COLOURS, HELLO, KEY, MODEL, NO_MODEL, PICTURE_BASE64, REPORT, WRONG_KEY } from "./checks.mjs";
import { must, namesRed, refused, run } from "./checks.mjs";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const PROVIDERS = {
  anthropic: (settings) => createAnthropic(settings),
  compatible: (settings) => createOpenAICompatible({ name: "periscope", supportsStructuredOutputs: true, ...settings }),
  openai: (settings) => createOpenAI(settings), // over responses
};
const modelOf = (name = MODEL, apiKey = KEY) => PROVIDERS[process.argv[2]]({ baseURL: BASE_URL, apiKey })(name);
const ask = (more = {}, model = modelOf()) => generateText({ model, prompt: HELLO, temperature: 0, maxRetries: 0, ...more });

await run({
  chat: async () => {
    const answer = await ask();
    must(answer.text && answer.usage.outputTokens > 0);
  },
  stream: async () => {
    let pieces = 0;
    const { textStream, finishReason } = streamText({ model: modelOf(), prompt: HELLO, maxRetries: 0 });
    for await (const _ of textStream) pieces += 1;
    must(pieces > 1 && (await finishReason) === "stop");
  },
  tools: async () => {
    const cities = [];
    const get_weather = tool({
      description: "The weather in a city.",
      inputSchema: z.object({ city: z.string().max(20) }),
      execute: ({ city }) => cities.push(city) && REPORT,
    });
    const prepareStep = ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? "required" : "none" });
    const answer = await ask({ tools: { get_weather }, prepareStep, stopWhen: stepCountIs(2) });
    must(cities.length === 1 && answer.steps.length === 2 && answer.text);
  },
  schema: async () => {
    const output = Output.object({ schema: z.object({ name: z.enum(COLOURS) }) });
    must(COLOURS.includes((await ask({ output })).output.name));
  },
  picture: async () => {
    const image = { type: "file", mediaType: "image/png", data: PICTURE_BASE64 };
    const messages = [{ role: "user", content: [{ type: "text", text: ABOUT_PICTURE }, image] }];
    namesRed((await ask({ prompt: undefined, messages })).text);
  },
  unknown_model: () => refused(() => ask({}, modelOf(NO_MODEL)), "404", NO_MODEL),
  wrong_key: () => refused(() => ask({}, modelOf(MODEL, WRONG_KEY)), "401", "key"),
});
