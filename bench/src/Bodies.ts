/** Texts of any length: what people write, what servers send, and what somebody would send to keep us busy. */

/** The piece again and again; what depends on its number is never the same twice. */
const repeated =
  (piece: string | ((index: number) => string)) =>
  (length: number): string => {
    const pieces: Array<string> = []
    for (let index = 0, total = 0; total < length; index++) {
      const next = typeof piece === "string" ? piece : piece(index)
      pieces.push(next)
      total += next.length
    }
    return pieces.join("").slice(0, length)
  }

/** As if random, and the same in every run: a multiplicative hash (D. Knuth). */
const mixed = (index: number): number => Math.imul(index + 1, 2_654_435_761) >>> 0

const hexadecimal = (index: number): string =>
  [1, 2, 3, 4]
    .map((part) =>
      mixed(index * 4 + part)
        .toString(16)
        .padStart(8, "0")
    )
    .join("")

const base64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

const time = (index: number): string => `2026-11-21T11:56:17.${100 + (index % 900)}Z`

export const ordinary: Readonly<Record<string, (length: number) => string>> = {
  prose: repeated(
    "The quick brown fox, a token of its kind: it jumps over the lazy dog, twice a day, at 12:45. "
  ),
  "prose of all scripts": repeated("Πες μου, γιατί ο ουρανός είναι μπλε; 请告诉我天空为什么是蓝色的 🙂 "),
  "JSON of a chat": repeated(
    '{"role":"user","content":"Hello, how are you? It is 12:45.","seed":[1,2.5,0.33333333]},'
  ),
  "JSON of usage": repeated(
    (index) =>
      `{"id":"chatcmpl-${hexadecimal(index).slice(8)}","created":${1_795_252_577 + index},"usage":{"prompt_tokens":${index},` +
      `"total_tokens":${index * 4},"prompt_tokens_details":{"cached_tokens":0}},"trace":"${hexadecimal(index)}"},`
  ),
  "log lines": repeated(
    (index) =>
      `${time(index)} level=INFO message=asked id=${hexadecimal(index)} ms=${mixed(index) % 10_000} at=${1_795_252_577_000 + index} cost=0.00${index} tokens=${index}\n`
  ),
  "log lines with secrets": repeated(
    (index) =>
      `${time(index)} level=INFO message=asked id=${hexadecimal(index)} key=sk-proj-abcdef${index} user=jo${index}@example.com ms=${mixed(index) % 10_000}\n`
  ),
  "source code": repeated(
    "export const make = (options: Options = {}): Service => {\n  const { limit = 10, names } = options\n  if (limit < 1) throw new Error(`limit is ${limit}`)\n  return names.map((name) => [name, limit] as const)\n}\n"
  ),
  base64: repeated((index) => base64.charAt(mixed(index) % 64)),
  hexadecimal: repeated(hexadecimal)
}

export const hostile: Readonly<Record<string, (length: number) => string>> = {
  ...Object.fromEntries(
    ["sk-", "key-", "eyJ-", "eyJaaaaaaaa.", "a@", "a@a.", "a.a.a.", "%40", "@", "Bearer ", "basic "]
      .concat([
        "cookie:",
        "token=",
        'token="',
        "token=\\a",
        "token:        ",
        '\\"token\\":\\"',
        "a=",
        ":",
        "="
      ])
      .concat(["1", "1 ", "1-", "4111 ", "4111 1111 1111 1112, ", "1795252577123,", "-", "-----BEGIN "])
      .concat(["-----BEGIN PRIVATE KEY-----", "://a:", "SG.aaaaaaaaaaaaaaaaaaaa", "\\", '"', " "])
      .map((piece) => [JSON.stringify(piece), repeated(piece)])
  ),
  "a key that does not end": (length) => `sk-${"a".repeat(length - 3)}`,
  "a private key that does not end": (length) => `-----BEGIN PRIVATE KEY-----${"a".repeat(length - 27)}`,
  "Bearer and spaces": (length) => `Bearer${" ".repeat(length - 6)}`,
  "secrets alone": repeated("sk-abcdef ")
}
