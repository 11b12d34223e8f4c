/**
 * Annotations of a text: where it says that it has something from.
 */
import * as Schema from "effect/Schema"

const text = Schema.optional(Schema.NullOr(Schema.String))
const place = Schema.optional(Schema.NullOr(Schema.Finite))

const Known = Schema.Union([
  Schema.Struct({
    type: Schema.Literal("file_citation"),
    file_id: Schema.String,
    filename: text,
    /** Where in the text it stands. */
    index: place
  }),
  Schema.Struct({
    type: Schema.Literal("url_citation"),
    url: Schema.String,
    title: text,
    start_index: place,
    end_index: place
  }),
  Schema.Struct({
    type: Schema.Literal("container_file_citation"),
    container_id: Schema.String,
    file_id: Schema.String,
    filename: text,
    start_index: place,
    end_index: place
  }),
  Schema.Struct({ type: Schema.Literal("file_path"), file_id: Schema.String, index: place })
])

/** One that this version does not know, or not in this shape. */
interface Unknown {
  readonly type: "unknown"
  /** Its type on the wire; empty where it has none. */
  readonly name: string
  /** As it came. */
  readonly raw: unknown
}

export type Citation = typeof Known.Type | Unknown

const isKnown = Schema.is(Known)
const isTyped = Schema.is(Schema.Struct({ type: Schema.String }))

/** Reads an annotation; fields that are not named stay on it. */
export const read = (annotation: unknown): Citation =>
  isKnown(annotation)
    ? annotation
    : { type: "unknown", name: isTyped(annotation) ? annotation.type : "", raw: annotation }
