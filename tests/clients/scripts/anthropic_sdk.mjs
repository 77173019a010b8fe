// Anthropic's own SDK, Node.
import { ABOUT_PICTURE, COLOURS, HELLO, KEY, MODEL, NO_MODEL, PICTURE_BASE64, REPORT, URL, WEATHER, WRONG_KEY } from "./checks.mjs";
import { must, namesRed, refused, run } from "./checks.mjs";
import Anthropic from "@anthropic-ai/sdk";

const clientOf = (apiKey = KEY) => new Anthropic({ baseURL: URL, apiKey, maxRetries: 0 });
const client = clientOf();
const asked = { model: MODEL, max_tokens: 100, messages: [{ role: "user", content: HELLO }] };
const tools = [{ name: "get_weather", input_schema: WEATHER }];
const schema = { type: "object", properties: { name: { enum: COLOURS } }, required: ["name"], additionalProperties: false };
const ask = (more = {}, of = client) => of.messages.create({ ...asked, ...more });
const textOf = (message) => message.content.filter((block) => block.type === "text").map((block) => block.text).join("");

await run({
  chat: async () => must(textOf(await ask())),
  stream: async () => {
    let text = "";
    const stream = client.messages.stream(asked).on("text", (delta) => (text += delta));
    must(textOf(await stream.finalMessage()) === text && text);
  },
  tools: async () => {
    const called = await ask({ tools, tool_choice: { type: "tool", name: "get_weather" } });
    must("city" in called.content[0].input);
    const result = { type: "tool_result", tool_use_id: called.content[0].id, content: REPORT };
    const turns = [{ role: "assistant", content: called.content }, { role: "user", content: [result] }];
    must(textOf(await ask({ tools, tool_choice: { type: "none" }, messages: [...asked.messages, ...turns] })));
  },
  schema: async () => {
    const output_config = { format: { type: "json_schema", schema } };
    must(COLOURS.includes(JSON.parse(textOf(await ask({ output_config }))).name));
  },
  picture: async () => {
    const source = { type: "base64", media_type: "image/png", data: PICTURE_BASE64 };
    const content = [{ type: "image", source }, { type: "text", text: ABOUT_PICTURE }];
    namesRed(textOf(await ask({ messages: [{ role: "user", content }] })));
  },
  unknown_model: () => refused(() => ask({ model: NO_MODEL }), "NotFoundError", NO_MODEL),
  wrong_key: () => refused(() => ask({}, clientOf(WRONG_KEY)), "AuthenticationError"),
  models: async () => must((await client.models.list()).data.some((model) => model.id === MODEL)),
});
