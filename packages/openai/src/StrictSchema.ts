/**
 * What a model must write, in the part of JSON Schema that OpenAI's strict mode takes, and how it is read.
 *
 * **Details**
 *
 * `Schema.toCodecOpenAI` of Effect does the rewriting: every property becomes required, an optional one takes `null`,
 * tuples become objects and records become lists of pairs; the codec undoes all of it. What is checked here is what it
 * lets pass: values of any type, the limits of depth and size, and roots that are no object.
 *
 * Bounds that strict mode has no word for (`minLength`, `uniqueItems`, …) are put into the description and held by the
 * codec; `unenforced` names them.
 *
 * @example
 * ```ts
 * import { StrictSchema } from "@llm/openai"
 * import { Result, Schema } from "effect"
 *
 * const Plan = Schema.Struct({ title: Schema.String, budget: Schema.optional(Schema.Finite) })
 * const strict = Result.getOrThrow(StrictSchema.fromSchema(Plan))
 * if (JSON.stringify(strict.jsonSchema["required"]) !== `["title","budget"]`) throw new Error("not strict")
 *
 * const loose = Schema.Struct({ plan: Schema.Struct({ notes: Schema.Unknown }) })
 * const failure = Result.getOrThrow(Result.flip(StrictSchema.fromSchema(loose)))
 * if (failure.path !== "/properties/plan/properties/notes") throw new Error(failure.path)
 * ```
 */
import * as JsonPointer from "effect/JsonPointer"
import * as JsonSchema from "effect/JsonSchema"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as SchemaAST from "effect/SchemaAST"
import * as SchemaRepresentation from "effect/SchemaRepresentation"
import { toCodecOpenAI } from "effect/ai/OpenAiStructuredOutput"
import * as StrictRules from "./internal/strictRules.ts"

/** A JSON Schema as a plain object. */
export type Json = { readonly [keyword: string]: unknown }

/** A schema that strict mode cannot say, and where. */
export class SchemaNotStrict extends Schema.TaggedError<SchemaNotStrict>()("SchemaNotStrict", {
  /** A JSON pointer into the JSON Schema; empty for the root. */
  path: Schema.String,
  detail: Schema.String,
  /** Whose schema it is, where that is known. */
  owner: Schema.optional(Schema.String)
}) {
  override get message(): string {
    const whose = this.owner === undefined ? "the schema" : `the schema of ${this.owner}`
    return `${whose} cannot be strict, at ${this.path === "" ? "its root" : this.path}: ${this.detail}`
  }
  /** The same with its owner's name. */
  of(owner: string): SchemaNotStrict {
    return new SchemaNotStrict({ path: this.path, detail: this.detail, owner })
  }
}

/** A bound that only the codec holds: a JSON pointer into the schema as it was before, and the keyword. */
export type Unenforced = StrictRules.Unenforced

/** What is sent, and how the answer is read. */
export interface StrictSchema<out A, out R = never> {
  readonly jsonSchema: Json
  /** Decodes the JSON that was written after `jsonSchema`. */
  readonly codec: Schema.ConstraintDecoder<A, R>
  readonly unenforced: ReadonlyArray<Unenforced>
}

export interface Options {
  /** Fails for bounds that strict mode has no word for, where they would be left to the codec. */
  readonly exact?: boolean | undefined
}

/** What was made of one schema, without its types. */
interface Compiled {
  readonly jsonSchema: Json
  readonly ast: SchemaAST.AST
  readonly unenforced: ReadonlyArray<Unenforced>
}

/** A schema is rewritten once, however often it is used. */
const compiledSchemas = new WeakMap<SchemaAST.AST, Compiled>()

/**
 * Makes an Effect Schema strict.
 *
 * @returns fails with `SchemaNotStrict` for the first place that strict mode cannot say
 */
export const fromSchema = <A, R>(
  schema: Schema.ConstraintDecoder<A, R>,
  options?: Options
): Result.Result<StrictSchema<A, R>, SchemaNotStrict> => {
  const known = compiledSchemas.get(schema.ast)
  const compiled = known === undefined ? compile(schema) : Result.succeed(known)
  return Result.flatMap(compiled, (found) => {
    compiledSchemas.set(schema.ast, found)
    return exactly(options, {
      jsonSchema: found.jsonSchema,
      codec: Schema.make<Schema.ConstraintDecoder<A, R>>(found.ast),
      unenforced: found.unenforced
    })
  })
}

const exactly = <A, R>(
  options: Options | undefined,
  schema: StrictSchema<A, R>
): Result.Result<StrictSchema<A, R>, SchemaNotStrict> => {
  const [first] = schema.unenforced
  return options?.exact === true && first !== undefined
    ? refused(first.path, `strict mode has no "${first.keyword}"`)
    : Result.succeed(schema)
}

const refused = (path: string, detail: string) => Result.fail(new SchemaNotStrict({ path, detail }))

const compile = (schema: Schema.Constraint): Result.Result<Compiled, SchemaNotStrict> => {
  // Effect takes the empty struct for any value that is there.
  if (isEmptyStruct(schema.ast)) {
    return Result.succeed({ jsonSchema: emptyObject, ast: schema.ast, unenforced: [] })
  }
  return Result.gen(function* () {
    const plain = yield* converted(() => Schema.toJsonSchemaDocument(schema, { onExcessProperty: "error" }))
    const { codec, jsonSchema } = yield* converted(() =>
      toCodecOpenAI(Schema.make<Schema.Codec<unknown>>(schema.ast))
    )
    const tidied = StrictRules.tidy(jsonSchema)
    const broken = StrictRules.violation(tidied)
    if (broken !== undefined) return yield* refused(broken.path, broken.detail)
    const unenforced = StrictRules.unenforced({ ...plain.schema, $defs: plain.definitions })
    return { jsonSchema: tidied, ast: codec.ast, unenforced }
  })
}

const emptyObject: Json = { type: "object", properties: {}, required: [], additionalProperties: false }

const isEmptyStruct = (ast: SchemaAST.AST): boolean =>
  ast._tag === "Objects" &&
  ast.propertySignatures.length === 0 &&
  ast.indexSignatures.length === 0 &&
  ast.encoding === undefined

/** Effect's converters throw; where they know the place, the last line of the message says it. */
const converted = <A>(convert: () => A): Result.Result<A, SchemaNotStrict> =>
  Result.try({
    try: convert,
    catch: (cause) => {
      const [detail = "", ...rest] = (cause instanceof Error ? cause.message : String(cause)).split("\n")
      const place = rest.findLast((line) => line.trimStart().startsWith("at ["))?.trim()
      return new SchemaNotStrict({
        path: pointerOf(place ?? ""),
        detail: detail.includes("Root JSON Schema")
          ? "the root must be one object: wrap it in a struct"
          : detail
      })
    }
  })

/** `at ["schema"]["properties"]["a"]` as `/properties/a`. */
const pointerOf = (place: string): string => {
  const segments = [...place.matchAll(/\[(?:"((?:[^"\\]|\\.)*)"|(\d+))\]/gu)].map(
    (match) => match[1] ?? match[2] ?? ""
  )
  const [root, ...below] = segments
  const inRoot = root === "definitions" ? ["$defs", ...below] : root === "schema" ? below : segments
  return inRoot.map((segment) => `/${JsonPointer.escapeToken(segment)}`).join("")
}

// ---------------------------------------------------------------------------
// From JSON Schema
// ---------------------------------------------------------------------------

/**
 * Makes a JSON Schema (draft 2020-12) strict. Objects that say nothing of further properties are closed.
 *
 * The codec gives the value as the schema describes it: a property that is optional there is missing where the model
 * wrote `null`. Patterns are run as they are: take them from nobody you do not trust.
 *
 * @returns fails with `SchemaNotStrict` for the first place that strict mode cannot say
 */
export const fromJsonSchema = (
  jsonSchema: Json,
  options?: Options
): Result.Result<StrictSchema<unknown>, SchemaNotStrict> =>
  Result.gen(function* () {
    if (isEmptyObject(jsonSchema)) {
      return { jsonSchema: emptyObject, codec: Schema.Record(Schema.String, Schema.Never), unenforced: [] }
    }
    const unsayable = StrictRules.unsayable(jsonSchema)
    if (unsayable !== undefined) return yield* refused(unsayable.path, unsayable.detail)
    const schema = yield* imported(jsonSchema)
    const strict = yield* fromSchema(schema)
    return yield* exactly(options, { ...strict, unenforced: StrictRules.unenforced(jsonSchema) })
  })

const isEmptyObject = (jsonSchema: Json): boolean =>
  jsonSchema["type"] === "object" &&
  jsonSchema["additionalProperties"] !== true &&
  Object.keys(Object(jsonSchema["properties"])).length === 0 &&
  !["$ref", "anyOf", "oneOf", "allOf", "patternProperties"].some((keyword) => keyword in jsonSchema) &&
  typeof jsonSchema["additionalProperties"] !== "object"

const imported = (jsonSchema: Json): Result.Result<Schema.Codec<unknown>, SchemaNotStrict> =>
  Result.map(
    converted(() =>
      SchemaRepresentation.fromJsonSchemaDocument(JsonSchema.fromSchemaDraft2020_12(jsonSchema), {
        patterns: "apply",
        onEnter: StrictRules.closed
      })
    ),
    // An imported schema needs no services.
    (schema) => Schema.make<Schema.Codec<unknown>>(schema.ast)
  )
