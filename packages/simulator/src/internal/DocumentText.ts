/** The text of a file, for the vector stores. */
import { Result } from "effect"
import { inflateSync } from "node:zlib"

export interface Failure {
  readonly code: "unsupported_file" | "invalid_file"
  readonly message: string
}

/** Reads UTF-8 and UTF-16 text, and the plain strings of a PDF. Fails as a vector store's file does. */
export const read = (bytes: Buffer): Result.Result<string, Failure> => {
  const text = bytes.subarray(0, 5).toString("latin1") === "%PDF-" ? pdfText(bytes) : plainText(bytes)
  if (text === undefined) {
    return Result.fail({ code: "unsupported_file", message: "The file type is not supported." })
  }
  return text.trim() === ""
    ? Result.fail({ code: "invalid_file", message: "The file could not be parsed because it is empty." })
    : Result.succeed(text)
}

const plainText = (bytes: Buffer): string | undefined => {
  const mark = bytes.subarray(0, 2).toString("hex")
  const encoding = mark === "fffe" ? "utf-16le" : mark === "feff" ? "utf-16be" : "utf-8"
  try {
    const text = new TextDecoder(encoding, { fatal: true }).decode(bytes)
    return text.includes("\0") ? undefined : text
  } catch {
    return undefined
  }
}

/** Only literal strings of text operators: enough for the PDFs that simple writers make. */
const pdfText = (bytes: Buffer): string => {
  const source = bytes.toString("latin1")
  const lines: Array<string> = []
  for (const match of source.matchAll(/(?<!end)stream\r?\n/g)) {
    const start = match.index + match[0].length
    const end = source.indexOf("endstream", start)
    if (end === -1) break
    let pending = ""
    for (const [token, string] of inflated(bytes.subarray(start, end)).matchAll(pdfToken)) {
      if (string !== undefined) {
        pending += string.replaceAll(/\\([()\\])/g, "$1")
        continue
      }
      if (token === "Tj" || token === "TJ") lines.push(pending)
      pending = ""
    }
  }
  return lines.join("\n")
}

/** A literal string, or an operator. */
const pdfToken = /\(((?:[^()\\]|\\.)*)\)|[A-Za-z'"*]+/g

const inflated = (bytes: Buffer): string => {
  try {
    return inflateSync(bytes).toString("latin1")
  } catch {
    return bytes.toString("latin1")
  }
}
