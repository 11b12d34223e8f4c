/** What a plan does to the head of a reply. */
import { STATUS_CODES } from "node:http"
import { gzipSync } from "node:zlib"
import type * as Answer from "./Answer.ts"
import type * as Plan from "./Plan.ts"

/** These faults are told by the length or the coding of a whole body. */
export const needsLength = (head: Plan.Head): boolean => head.shortLength !== undefined || head.badEncoding

/** The answer in one piece, its coding damaged where the plan says so. */
export const asBody = (answer: Answer.Answer, head: Plan.Head): Answer.Body => {
  const body: Answer.Body =
    answer.kind === "body"
      ? answer
      : {
          kind: "body",
          status: 200,
          contentType: "text/event-stream; charset=utf-8",
          bytes: answer.bytes,
          usage: answer.usage
        }
  return head.badEncoding
    ? { ...body, bytes: damagedGzip(body.bytes), headers: { ...body.headers, "content-encoding": "gzip" } }
    : body
}

/** The sum at the end is wrong, and so is what stands before it. */
const damagedGzip = (bytes: Buffer): Buffer => {
  const gzip = gzipSync(bytes)
  for (let index = Math.floor(gzip.length / 2); index < gzip.length; index++)
    gzip[index] = (gzip[index] ?? 0) ^ 0xff
  return gzip
}

/** Names and values in turn. */
export const changed = (headers: ReadonlyArray<string>, head: Plan.Head): Array<string> => {
  let pairs = headers.flatMap((name, index): ReadonlyArray<readonly [string, string]> =>
    index % 2 === 0 ? [[name, headers[index + 1] ?? ""]] : []
  )
  if (head.contentType !== undefined) {
    const value = head.contentType
    pairs = pairs.map(([name, known]) => [name, name === "content-type" ? value : known])
  }
  if (head.noRequestId) pairs = pairs.filter(([name]) => name !== "x-request-id")
  if (head.odd) {
    pairs = pairs.map(([name, value]) => [odd(name), value])
    pairs.push(["OPENAI-VERSION", "2020-10-01"], ["x-RateLimit-Limit-Requests", "1"])
  }
  if (head.huge !== undefined) pairs.push(["x-huge", "x".repeat(head.huge)])
  return pairs.flat()
}

const odd = (name: string): string =>
  name.replaceAll(/[a-z]/g, (letter, at: number) => (at % 2 === 0 ? letter.toUpperCase() : letter))

/** The head as it goes on the wire, for a connection that ends with the body. */
export const text = (status: number, headers: ReadonlyArray<string>): Buffer => {
  const lines = headers.flatMap((name, index) =>
    index % 2 === 0 ? [`${name}: ${headers[index + 1] ?? ""}\r\n`] : []
  )
  return Buffer.from(
    `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? "Unknown"}\r\n${lines.join("")}connection: close\r\n\r\n`
  )
}
