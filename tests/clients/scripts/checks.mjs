// What the scripts of all clients for Node share.
import { readFileSync } from "node:fs";

export const URL = process.env.PERISCOPE_URL;
export const BASE_URL = `${URL}/v1`;
export const KEY = process.env.PERISCOPE_KEY;
export const WRONG_KEY = "no-such-key";
export const MODEL = "demo";
export const NO_MODEL = "no-such-model";
// A red circle on white.
export const PICTURE_BASE64 = readFileSync(process.env.PERISCOPE_PICTURE).toString("base64");
export const PICTURE_URL = `data:image/png;base64,${PICTURE_BASE64}`;

export const EMBEDDER = "embedder";

export const HELLO = "Hello!";
export const ABOUT_PICTURE = "What colour is the circle?";
export const COLOURS = ["red", "green", "blue"];
export const WEATHER = {
  type: "object",
  properties: { city: { type: "string", maxLength: 20 } },
  required: ["city"],
  additionalProperties: false,
};
export const REPORT = "Sunny, 21 degrees.";

// Run the checks, each told in a line of JSON. One that is missing is not offered by the client.
export async function run(checks) {
  for (const [check, body] of Object.entries(checks)) {
    let result = "ok";
    let detail = "";
    try {
      await body();
    } catch (error) {
      console.error(error);
      result = "failed";
      detail = `${error.name}: ${error.message}`.slice(0, 500);
    }
    console.log(JSON.stringify({ check, result, detail }));
  }
}

export function must(value, told = "nothing came") {
  if (!value) throw new Error(told);
  return value;
}

export function namesRed(text) {
  must(/red/i.test(text), text);
}

// The client raises an error of its own whose text has these words.
export async function refused(ask, ...said) {
  let told;
  try {
    await ask();
  } catch (error) {
    told = `${error.constructor.name} ${error.name} ${error.statusCode ?? error.status} ${error.message}`.toLowerCase();
  }
  must(told !== undefined, "no error was raised");
  for (const word of said) must(told.includes(word.toLowerCase()), `${word} is not in: ${told}`);
}
