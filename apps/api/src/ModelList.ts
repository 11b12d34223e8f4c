/**
 * What `GET /v1/models` shows: the models that a caller may ask for, those that only the configuration knows included.
 */
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"

const List = Schema.fromJsonString(
  Schema.Struct({
    object: Schema.optional(Schema.Unknown),
    data: Schema.Array(Schema.Record(Schema.String, Schema.Unknown))
  })
)
const decodeList = Schema.decodeUnknownOption(List)

const decoder = new TextDecoder()
const encoder = new TextEncoder()

/** A model of the configuration, as OpenAI describes one. */
const describe = (id: string) => ({ id, object: "model", created: 0, owned_by: "gateway" })

/** A model of the configuration, as `GET /v1/models/{id}` answers. */
export const one = (id: string): Uint8Array => encoder.encode(JSON.stringify(describe(id)))

/**
 * A provider's list as a caller may see it; the provider's own bytes where there is nothing to change.
 *
 * @param body the provider's answer
 * @param names what callers may ask for by the configuration; they come first
 * @param may whether the caller may use a model
 */
export const shown = (
  body: Uint8Array,
  names: ReadonlyArray<string>,
  may: (model: string) => boolean
): Uint8Array => {
  const decoded = Option.getOrUndefined(decodeList(decoder.decode(body)))
  if (decoded === undefined) return body
  const offered = decoded.data.filter(({ id }) => typeof id === "string" && may(id))
  const known = new Set(offered.map(({ id }) => id))
  const own = names.filter((name) => !known.has(name) && may(name)).map(describe)
  if (own.length === 0 && offered.length === decoded.data.length) return body
  return encoder.encode(JSON.stringify({ object: "list", data: [...own, ...offered] }))
}

/** The model that a path below `/models` names; `undefined` where it names none. The router knows no letter case. */
export const inPath = (path: string): string | undefined => {
  const segment = /^\/models\/([^/?]+)/iu.exec(path)?.[1]
  return segment === undefined ? undefined : decodeURIComponent(segment)
}
