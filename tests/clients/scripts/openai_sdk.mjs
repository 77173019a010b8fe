// OpenAI's own SDK, Node.
import { ABOUT_PICTURE, BASE_URL, COLOURS, EMBEDDER, HELLO, KEY, MODEL, NO_MODEL, PICTURE_URL, REPORT, WEATHER, WRONG_KEY } from "./checks.mjs";
import { must, namesRed, refused, run } from "./checks.mjs";
import OpenAI from "openai";

const clientOf = (apiKey = KEY) => new OpenAI({ baseURL: BASE_URL, apiKey, maxRetries: 0 });
const client = clientOf();
const messages = [{ role: "user", content: HELLO }];
const tool = { type: "function", function: { name: "get_weather", parameters: WEATHER, strict: true } };
const schema = { type: "object", properties: { name: { enum: COLOURS } }, required: ["name"], additionalProperties: false };
const ask = async (more = {}, of = client) =>
  (await of.chat.completions.create({ model: MODEL, messages, ...more })).choices[0].message;

await run({
  chat: async () => must((await ask()).content),
  stream: async () => {
    const stream = client.chat.completions.stream({ model: MODEL, messages });
    let text = "";
    for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
    must(text && text === (await stream.finalMessage()).content);
  },
  tools: async () => {
    const forced = { type: "function", function: { name: "get_weather" } };
    const called = await ask({ tools: [tool], tool_choice: forced });
    must("city" in JSON.parse(called.tool_calls[0].function.arguments));
    const result = { role: "tool", tool_call_id: called.tool_calls[0].id, content: REPORT };
    must((await ask({ messages: [...messages, called, result] })).content);
  },
  schema: async () => {
    const response_format = { type: "json_schema", json_schema: { name: "colour", strict: true, schema } };
    must(COLOURS.includes(JSON.parse((await ask({ response_format })).content).name));
  },
  picture: async () => {
    const content = [{ type: "text", text: ABOUT_PICTURE }, { type: "image_url", image_url: { url: PICTURE_URL } }];
    namesRed((await ask({ messages: [{ role: "user", content }] })).content);
  },
  unknown_model: () => refused(() => ask({ model: NO_MODEL }), "NotFoundError", NO_MODEL),
  wrong_key: () => refused(() => ask({}, clientOf(WRONG_KEY)), "AuthenticationError", "API key"),
  responses: async () => {
    const answer = await client.responses.create({ model: MODEL, input: HELLO });
    must(answer.output_text);
    const stream = client.responses.stream({ model: MODEL, input: "And now?", previous_response_id: answer.id });
    let text = "";
    for await (const event of stream) if (event.type === "response.output_text.delta") text += event.delta;
    must(text && text === (await stream.finalResponse()).output_text);
    const content = [{ type: "input_text", text: ABOUT_PICTURE }, { type: "input_image", image_url: PICTURE_URL, detail: "auto" }];
    namesRed((await client.responses.create({ model: MODEL, input: [{ role: "user", content }] })).output_text);
  },
  embeddings: async () => must((await client.embeddings.create({ model: EMBEDDER, input: [HELLO] })).data[0].embedding.length > 1),
  completions: async () => must((await client.completions.create({ model: MODEL, prompt: "A red", max_tokens: 4 })).choices[0].text),
  models: async () => must((await client.models.list()).data.some((model) => model.id === MODEL)),
});
