/**
 * Reads the parameters of a request by a Schema, and says what is wrong as OpenAI does: the first parameter, as a path.
 *
 * A form carries numbers and booleans as text; the schemas here take both.
 */
import { Predicate, Result, Schema, SchemaGetter, SchemaIssue } from "effect"
import * as ApiError from "./ApiError.ts"
import { UploadedFile } from "./Form.ts"

/** Absent, null or as the schema says. */
export const optional = <S extends Schema.Constraint>(schema: S) => Schema.optionalKey(Schema.NullOr(schema))

export const File = Schema.instanceOf(UploadedFile)

const AnyNumber = Schema.Union([Schema.Finite, Schema.FiniteFromString])

/** A number from `minimum` to `maximum`, both included. */
export const number = (minimum: number, maximum: number) =>
  AnyNumber.check(Schema.isBetween({ minimum, maximum }))

/** A whole number from `minimum` to `maximum`, both included. */
export const whole = (minimum: number, maximum: number) =>
  AnyNumber.check(Schema.isInt(), Schema.isBetween({ minimum, maximum }))

export const Flag = Schema.Union([
  Schema.Boolean,
  Schema.Literals(["true", "false"]).pipe(
    Schema.decodeTo(Schema.Boolean, {
      decode: SchemaGetter.transform((text: "true" | "false") => text === "true"),
      encode: SchemaGetter.transform((flag: boolean): "true" | "false" => (flag ? "true" : "false"))
    })
  )
])

/** Up to 16 pairs of short texts. */
export const Metadata = Schema.Record(Schema.String, Schema.String.check(Schema.isMaxLength(512))).check(
  Schema.makeFilter((pairs) => shortPairs(pairs))
)

/** What a file in a vector store can be filtered by. */
export const Attributes = Schema.Record(
  Schema.String,
  Schema.Union([Schema.String.check(Schema.isMaxLength(512)), Schema.Finite, Schema.Boolean])
).check(Schema.makeFilter((pairs) => shortPairs(pairs)))

const shortPairs = (pairs: { readonly [key: string]: unknown }): string | undefined => {
  const keys = Object.keys(pairs)
  if (keys.length > 16) return "expected at most 16 pairs"
  return keys.some((key) => key.length > 64) ? "expected keys of at most 64 characters" : undefined
}

/** `expires_after` of a file, in seconds after it was made. */
export const ExpiresAfter = Schema.Struct({
  anchor: Schema.Literals(["created_at"]),
  seconds: whole(3600, 2_592_000)
})

export const missing = (parameter: string): ApiError.ApiError =>
  ApiError.invalidRequest(`Missing required parameter: '${parameter}'.`, {
    param: parameter,
    code: "missing_required_parameter"
  })

export const invalid = (parameter: string, what: string): ApiError.ApiError =>
  ApiError.invalidRequest(`Invalid value for '${parameter}': ${what}.`, {
    param: parameter,
    code: "invalid_value"
  })

/** A function that reads a body; it fails with the error to answer. */
export const decoder = <S extends Schema.Constraint & { readonly DecodingServices: never }>(
  schema: S
): ((body: unknown) => Result.Result<S["Type"], ApiError.ApiError>) => {
  const decode = Schema.decodeUnknownResult(schema)
  return (body) => {
    if (body === undefined) return Result.mapError(decode({}), ({ issue }) => explained(issue))
    if (!Predicate.isObject(body) || Array.isArray(body)) {
      return Result.fail(ApiError.invalidRequest("Invalid body: expected a JSON object."))
    }
    return Result.mapError(decode(body), ({ issue }) => explained(issue))
  }
}

/**
 * `decoder`, and under strict settings nothing else may be in the body but what begins with `x_`.
 *
 * @param alsoKnown parameters that decide nothing here.
 */
export const strictDecoder = <
  S extends Schema.Constraint & {
    readonly DecodingServices: never
    readonly fields: Readonly<Record<string, unknown>>
  }
>(
  schema: S,
  alsoKnown: ReadonlyArray<string> = []
): ((
  body: unknown,
  settings: { readonly strict: boolean }
) => Result.Result<S["Type"], ApiError.ApiError>) => {
  const decode = decoder(schema)
  const known = new Set([...Object.keys(schema.fields), ...alsoKnown])
  return (body, { strict }) => {
    const names = strict && Predicate.isObject(body) ? Object.keys(body) : []
    const unknown = names.find((name) => !known.has(name) && !name.startsWith("x_"))
    return unknown === undefined
      ? decode(body)
      : Result.fail(
          ApiError.invalidRequest(`Unknown parameter: '${unknown}'.`, {
            param: unknown,
            code: "unknown_parameter"
          })
        )
  }
}

const formatIssue = SchemaIssue.makeFormatterStandardSchemaV1()

const explained = (issue: SchemaIssue.Issue): ApiError.ApiError => {
  const [first] = formatIssue(issue).issues
  const parameter = (first?.path ?? [])
    .map((part) => (Predicate.isObject(part) ? part["key"] : part))
    .reduce<string>((path, part) => {
      if (Predicate.isNumber(part)) return `${path}[${part}]`
      return path === "" ? String(part) : `${path}.${String(part)}`
    }, "")
  return first?.message === "Missing key"
    ? missing(parameter)
    : invalid(parameter, first?.message ?? "invalid")
}
