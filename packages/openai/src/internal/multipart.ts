/**
 * A form with files as it goes over the wire (`multipart/form-data`), read while it is sent.
 */
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as Stream from "effect/Stream"
import { type Content, isOnce, type Progress, read, sizeOf } from "./content.ts"
import type { Pieces } from "./bodyStream.ts"

/** A file of a form. */
export class FormFile {
  readonly content: Content
  readonly filename: string
  /** Of its content; `application/octet-stream` unless told. */
  readonly type: string
  readonly onProgress: ((progress: Progress) => void) | undefined
  constructor(
    content: Content,
    options: {
      readonly filename: string
      readonly type?: string | undefined
      readonly onProgress?: ((progress: Progress) => void) | undefined
    }
  ) {
    this.content = content
    this.filename = options.filename
    this.type = options.type ?? "application/octet-stream"
    this.onProgress = options.onProgress
  }
}

/**
 * By name. Names nest as OpenAI's clients write them: `expires_after[anchor]` is a field of an object,
 * `include[]` one of a list; what is `undefined` or `null` is left out.
 */
export type Fields = Readonly<Record<string, unknown>>

const isFile = (value: unknown): boolean =>
  value instanceof FormFile || (Array.isArray(value) && value.some(isFile))

/** The fields of a form that are files, or lists of files, and all the others. */
export const parted = (fields: Fields): { readonly files: Fields; readonly texts: Fields } => {
  const all = Object.entries(fields)
  return {
    files: Object.fromEntries(all.filter(([, value]) => isFile(value))),
    texts: Object.fromEntries(all.filter(([, value]) => !isFile(value)))
  }
}

/** A form, ready to be sent any number of times. */
export interface Form extends Pieces {
  readonly size: number
  readonly contentType: string
  /** It can be sent once only. */
  readonly once: boolean
}

interface Part {
  readonly head: Buffer
  readonly value: Buffer | FormFile
}

/** As browsers write it: a name cannot end its quotes or its line. */
const quoted = (text: string): string =>
  `"${text.replaceAll("\r", "%0D").replaceAll("\n", "%0A").replaceAll('"', "%22")}"`

const partsOf = (name: string, value: unknown): ReadonlyArray<readonly [string, string | FormFile]> => {
  if (value === undefined || value === null) return []
  if (value instanceof FormFile) return [[name, value]]
  if (Array.isArray(value)) return value.flatMap((item: unknown) => partsOf(`${name}[]`, item))
  if (typeof value === "object") {
    return Object.entries(value).flatMap(([key, inner]) => partsOf(`${name}[${key}]`, inner))
  }
  return [[name, String(value)]]
}

/** 128 bits that no file holds by accident. */
const makeBoundary: Effect.Effect<string> = Effect.map(Random.Random, (random) => {
  let text = "llm"
  while (text.length < 35) text += Math.floor(random.nextDoubleUnsafe() * 16).toString(16)
  return text
})

/** Writes a form; its boundary is new each time. */
export const make = (fields: Fields): Effect.Effect<Form> =>
  Effect.map(makeBoundary, (boundary) => {
    const parts = Object.entries(fields)
      .flatMap(([name, value]) => partsOf(name, value))
      .map(([name, value]): Part => {
        const disposition = `--${boundary}\r\ncontent-disposition: form-data; name=${quoted(name)}`
        return typeof value === "string"
          ? { head: Buffer.from(`${disposition}\r\n\r\n`), value: Buffer.from(value) }
          : {
              head: Buffer.from(
                `${disposition}; filename=${quoted(value.filename)}\r\ncontent-type: ${value.type.replaceAll(/[\r\n]/gu, " ")}\r\n\r\n`
              ),
              value
            }
      })
    const end = Buffer.from(`--${boundary}--\r\n`)
    const line = Buffer.from("\r\n")
    const size = parts.reduce(
      (sum, { head, value }) =>
        sum + head.length + (value instanceof FormFile ? sizeOf(value.content) : value.length) + line.length,
      end.length
    )
    return {
      contentType: `multipart/form-data; boundary=${boundary}`,
      size,
      pieces: Stream.fromIterable(parts).pipe(
        Stream.flatMap(({ head, value }) =>
          value instanceof FormFile
            ? Stream.make(head).pipe(
                Stream.concat(read(value.content, value.onProgress)),
                Stream.concat(Stream.make(line))
              )
            : Stream.make(head, value, line)
        ),
        Stream.concat(Stream.make(end))
      ),
      once: parts.some(({ value }) => value instanceof FormFile && isOnce(value.content))
    }
  })
