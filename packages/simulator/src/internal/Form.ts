/**
 * A `multipart/form-data` body as one value: texts, nested and repeated ones as objects and lists, and files.
 *
 * Names are read as OpenAI's clients write them: `timestamp_granularities[]` is a list, `expires_after[anchor]` a field
 * of an object.
 */
import { Predicate, Result } from "effect"
import { MultipartParser } from "effect/http"

/** A part that has a file name. */
export class UploadedFile {
  readonly filename: string
  readonly contentType: string
  readonly bytes: Buffer

  constructor(filename: string, contentType: string, bytes: Buffer) {
    this.filename = filename
    this.contentType = contentType
    this.bytes = bytes
  }

  /** What the journal keeps of it. */
  toJSON() {
    return { filename: this.filename, content_type: this.contentType, bytes: this.bytes.length }
  }
}

export type Value = string | UploadedFile | ReadonlyArray<Value> | { readonly [name: string]: Value }

export const isForm = (contentType: string | undefined): contentType is string =>
  contentType !== undefined && /^multipart\/form-data\b/i.test(contentType)

interface Part {
  readonly name: string
  readonly value: string | UploadedFile
}

/** Reads a body. Fails with the parser's word for what is wrong with it. */
export const parse = (contentType: string, body: Buffer): Result.Result<Value, string> => {
  const parts: Array<Part> = []
  let error: string | undefined
  const parser = MultipartParser.make({
    headers: { "content-type": contentType },
    // Every part as a file: a field is decoded to text, and that would change the bytes of a nameless file.
    isFile: () => true,
    onField: () => {},
    onFile: (info) => {
      const chunks: Array<Uint8Array> = []
      return (chunk) => {
        if (chunk !== null) {
          chunks.push(chunk)
          return
        }
        const bytes = Buffer.concat(chunks)
        const value =
          info.filename === undefined && info.contentType !== "application/octet-stream"
            ? bytes.toString()
            : new UploadedFile(info.filename ?? "upload", info.contentType, bytes)
        parts.push({ name: info.name, value })
      }
    },
    onError: ({ _tag }) => {
      error ??= _tag
    },
    onDone: () => {}
  })
  parser.write(body)
  parser.end()
  return error === undefined ? Result.succeed(assembled(parts)) : Result.fail(error)
}

/** The same without the bytes of its files. */
export const description = (value: unknown): unknown => {
  if (value instanceof UploadedFile) return value.toJSON()
  if (Array.isArray(value)) return value.map(description)
  if (!Predicate.isObject(value)) return value
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, description(inner)]))
}

interface Tree {
  [name: string]: Tree | Array<Value> | string | UploadedFile
}

const assembled = (parts: ReadonlyArray<Part>): Value => {
  const root: Tree = Object.create(null)
  for (const { name, value } of parts) {
    const [first = "", ...rest] = name.split("[").map((key) => key.replace(/\]$/, ""))
    let tree = root
    let key = first
    let list = false
    for (const next of rest) {
      if (next === "") {
        list = true
        break
      }
      const inner = tree[key]
      const child: Tree = isTree(inner) ? inner : Object.create(null)
      tree[key] = child
      tree = child
      key = next
    }
    const known = tree[key]
    if (list || known !== undefined) {
      const before = Array.isArray(known) ? known : known === undefined || isTree(known) ? [] : [known]
      tree[key] = [...before, value]
    } else {
      tree[key] = value
    }
  }
  return root
}

const isTree = (value: Tree[string] | undefined): value is Tree =>
  Predicate.isObject(value) && !Array.isArray(value) && !(value instanceof UploadedFile)
