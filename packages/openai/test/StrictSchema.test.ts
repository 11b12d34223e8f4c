import { assert, describe, it } from "@effect/vitest"
import { Effect, Result, Schema } from "effect"
import * as fc from "fast-check"
import { StrictSchema } from "@llm/openai"
import { holds } from "./support/Property.ts"

const strictOf = <A, R>(schema: Schema.ConstraintDecoder<A, R>) =>
  Result.getOrThrow(StrictSchema.fromSchema(schema))

const failureOf = <A, R>(
  result: Result.Result<StrictSchema.StrictSchema<A, R>, StrictSchema.SchemaNotStrict>
) => Result.getOrThrow(Result.flip(result))

/** Properties deep inside one another. */
const nested = (depth: number): StrictSchema.Json =>
  depth === 0
    ? { type: "string" }
    : { type: "object", properties: { inner: nested(depth - 1) }, required: ["inner"] }

const objectOf = (properties: StrictSchema.Json): StrictSchema.Json => ({ type: "object", properties })

interface Tree {
  readonly name: string
  readonly children: ReadonlyArray<Tree>
}

const Tree = Schema.Struct({
  name: Schema.String,
  children: Schema.Array(Schema.suspend((): Schema.Codec<Tree> => Tree))
}).annotate({ identifier: "Tree" })

describe("fromSchema", () => {
  it("requires every property, closes every object, and makes what is optional nullable", () => {
    const Order = Schema.Struct({
      id: Schema.String.annotate({ description: "Of the order" }),
      note: Schema.optional(Schema.String),
      amount: Schema.optional(Schema.NullOr(Schema.Finite)),
      lines: Schema.Array(Schema.Struct({ sku: Schema.String, kind: Schema.Literals(["new", "used"]) }))
    })
    const strict = strictOf(Order)
    assert.deepStrictEqual(strict.jsonSchema, {
      type: "object",
      properties: {
        id: { type: "string", description: "Of the order" },
        note: { anyOf: [{ type: "string" }, { type: "null" }] },
        amount: { anyOf: [{ type: "number" }, { type: "null" }] },
        lines: {
          type: "array",
          items: {
            type: "object",
            properties: { sku: { type: "string" }, kind: { type: "string", enum: ["new", "used"] } },
            required: ["sku", "kind"],
            additionalProperties: false
          }
        }
      },
      required: ["id", "note", "amount", "lines"],
      additionalProperties: false
    })
    const order = Schema.decodeUnknownSync(strict.codec)({ id: "1", note: null, amount: null, lines: [] })
    assert.deepStrictEqual(order, { id: "1", lines: [] })
  })

  it("decodes to the Schema's own type: dates, classes, tuples and records", () => {
    class Person extends Schema.Class<Person>("Person")({ name: Schema.String }) {}
    const strict = strictOf(
      Schema.Struct({
        person: Person,
        at: Schema.Date,
        place: Schema.Tuple([Schema.Finite, Schema.Finite]),
        scores: Schema.Record(Schema.String, Schema.Int)
      })
    )
    const value = Schema.decodeUnknownSync(strict.codec)({
      person: { name: "Ada" },
      at: "2026-11-21T12:00:00.000Z",
      place: { 0: 1.5, 1: 2.5 },
      scores: [{ 0: "maths", 1: 6 }]
    })
    assert.instanceOf(value.person, Person)
    assert.strictEqual(value.at.getTime(), Date.UTC(2026, 10, 21, 12))
    assert.deepStrictEqual([value.place, value.scores], [[1.5, 2.5], { maths: 6 }])
  })

  it("keeps recursion, and only the definitions that are used", () => {
    const strict = strictOf(Tree)
    const text = JSON.stringify(strict.jsonSchema)
    const names = Object.keys(Object(strict.jsonSchema["$defs"]))
    assert.isAbove(names.length, 0)
    for (const name of names) assert.include(text, `"$ref":"#/$defs/${name}"`)
    const tree = { name: "a", children: [{ name: "b", children: [] }] }
    assert.deepStrictEqual(Schema.decodeUnknownSync(strict.codec)(tree), tree)
  })

  it("is a tool's empty parameters", () => {
    assert.deepStrictEqual(strictOf(Schema.Struct({})).jsonSchema, {
      type: "object",
      properties: {},
      required: [],
      additionalProperties: false
    })
  })

  it("leaves bounds without a word to the codec, and names them", () => {
    const Named = Schema.Struct({ name: Schema.String.check(Schema.isMinLength(3)) })
    const strict = strictOf(Named)
    assert.deepStrictEqual(strict.unenforced, [{ path: "/properties/name", keyword: "minLength" }])
    assert.notInclude(JSON.stringify(strict.jsonSchema), "minLength")
    assert.include(JSON.stringify(strict.jsonSchema), "at least 3")
    assert.isTrue(Result.isFailure(Schema.decodeUnknownResult(strict.codec)({ name: "ab" })))
    const exact = failureOf(StrictSchema.fromSchema(Named, { exact: true }))
    assert.strictEqual(exact.path, "/properties/name")
  })

  const refused: ReadonlyArray<
    readonly [what: string, schema: Schema.ConstraintDecoder<unknown>, path: string]
  > = [
    [
      "a value of any type",
      Schema.Struct({ a: Schema.Struct({ b: Schema.Unknown }) }),
      "/properties/a/properties/b"
    ],
    ["any JSON in a list", Schema.Struct({ a: Schema.Array(Schema.Json) }), "/properties/a/items"],
    ["what has no JSON form", Schema.Struct({ a: Schema.instanceOf(Map) }), "/properties/a"],
    ["a list at the root", Schema.Array(Schema.String), ""],
    [
      "a union at the root",
      Schema.Union([Schema.Struct({ a: Schema.String }), Schema.Struct({ b: Schema.String })]),
      ""
    ],
    [
      "a name that is never read",
      Schema.Struct({ a: Schema.Struct({ constructor: Schema.String }) }),
      "/properties/a"
    ],
    ["a record at the root", Schema.Record(Schema.String, Schema.String), ""]
  ]
  it.each(refused)("refuses %s and says where", (_, schema, path) => {
    const failure = failureOf(StrictSchema.fromSchema(schema))
    assert.strictEqual(failure._tag, "SchemaNotStrict")
    assert.strictEqual(failure.path, path, failure.message)
  })

  it("gives the same for the same Schema, and never holds what one call asked for", () => {
    const Named = Schema.Struct({ name: Schema.String.check(Schema.isMaxLength(3)) })
    assert.strictEqual(strictOf(Named).jsonSchema, strictOf(Named).jsonSchema)
    assert.isTrue(Result.isFailure(StrictSchema.fromSchema(Named, { exact: true })))
    assert.isTrue(Result.isSuccess(StrictSchema.fromSchema(Named)))
  })
})

describe("fromJsonSchema", () => {
  it("rewrites a plain schema, and reads what was written after it", () => {
    const strict = Result.getOrThrow(
      StrictSchema.fromJsonSchema({
        type: "object",
        properties: {
          city: { type: "string", description: "Name" },
          unit: { enum: ["c", "f"] },
          place: { $ref: "#/$defs/Place" }
        },
        required: ["city"],
        $defs: { Place: { type: "object", properties: { lat: { type: "number" } }, required: ["lat"] } }
      })
    )
    assert.deepStrictEqual(strict.jsonSchema["required"], ["city", "unit", "place"])
    const decode = Schema.decodeUnknownResult(strict.codec)
    assert.deepStrictEqual(
      decode({ city: "Bern", unit: null, place: { lat: 47 } }),
      Result.succeed({ city: "Bern", place: { lat: 47 } })
    )
    assert.isTrue(Result.isFailure(decode({ city: 1, unit: null, place: null })))
    assert.isTrue(Result.isFailure(decode({ city: "Bern", unit: "k", place: null })))
  })

  it.each([
    ["not", objectOf({ a: { not: { type: "string" } } }), "/properties/a/not"],
    [
      "patternProperties",
      objectOf({ a: { type: "object", patternProperties: {} } }),
      "/properties/a/patternProperties"
    ],
    ["an open object", objectOf({ a: { type: "object", additionalProperties: true } }), "/properties/a"],
    ["an open root", { type: "object", properties: {}, additionalProperties: true }, ""],
    ["no type", objectOf({ a: { description: "anything" } }), "/properties/a/anyOf/0"],
    [
      "an intersection",
      objectOf({ a: { allOf: [{ type: "object" }, { type: "object" }] } }),
      "/properties/a/allOf"
    ],
    ["a text at the root", { type: "string" }, ""],
    ["a definition that is missing", objectOf({ a: { $ref: "#/$defs/Nowhere" } }), "/properties/a/$ref"],
    ["too deep a nesting", nested(10), "/properties/inner".repeat(10)]
  ])("refuses %s and says where", (_, schema, path) => {
    const failure = failureOf(StrictSchema.fromJsonSchema(schema))
    // Optional members get a union around them.
    assert.strictEqual(
      failure.path.replaceAll("/anyOf/0", ""),
      path.replaceAll("/anyOf/0", ""),
      failure.message
    )
  })

  it.each([
    [
      "properties",
      objectOf(Object.fromEntries(Array.from({ length: 5001 }, (_, at) => [`p${at}`, { type: "string" }])))
    ],
    ["enum values", objectOf({ a: { enum: Array.from({ length: 1001 }, (_, at) => at) } })],
    ["characters", objectOf({ a: { enum: Array.from({ length: 251 }, (_, at) => `${at}`.padEnd(60, "x")) } })]
  ])("refuses too many %s", (word, schema) => {
    assert.include(failureOf(StrictSchema.fromJsonSchema(schema)).detail, word)
  })

  it("is strict all through, whatever of the subset comes in", () => {
    const { schema } = fc.letrec<{ schema: StrictSchema.Json; object: StrictSchema.Json }>((tie) => ({
      schema: fc.oneof(
        { depthSize: "small", maxDepth: 4 },
        fc.constantFrom<StrictSchema.Json>(
          { type: "string", minLength: 1 },
          { type: "integer", minimum: 0 },
          { type: "boolean" },
          { enum: ["a", "b"] },
          { type: ["string", "null"] },
          { const: 7 }
        ),
        tie("schema").map((items) => ({ type: "array", items })),
        fc.tuple(tie("schema"), tie("schema")).map((anyOf) => ({ anyOf })),
        tie("object")
      ),
      object: fc
        .dictionary(fc.stringMatching(/^[a-z]{1,3}$/), tie("schema"), { minKeys: 1, maxKeys: 4 })
        .chain((properties) =>
          fc.subarray(Object.keys(properties)).map((required) => ({ type: "object", properties, required }))
        )
    }))
    const root = schema.map((property) => objectOf({ property }))
    holds(
      root,
      (plain) => {
        const result = StrictSchema.fromJsonSchema(plain)
        if (Result.isFailure(result)) {
          assert.include(result.failure.detail, "levels", result.failure.message)
          return
        }
        const visit = (node: unknown): void => {
          if (typeof node !== "object" || node === null) return
          if (Reflect.get(node, "type") === "object") {
            assert.strictEqual(Reflect.get(node, "additionalProperties"), false)
            assert.sameMembers(Object.keys(Object(Reflect.get(node, "properties"))), [
              ...Object(Reflect.get(node, "required"))
            ])
          }
          for (const inner of Object.values(node)) visit(inner)
        }
        visit(result.success.jsonSchema)
      },
      150
    )
  })

  it("takes an object of nothing for one, and bounds as `exact` says", () => {
    const empty = Result.getOrThrow(StrictSchema.fromJsonSchema({ type: "object" }))
    assert.deepStrictEqual(empty.jsonSchema["properties"], {})
    assert.isTrue(Result.isSuccess(Schema.decodeUnknownResult(empty.codec)({})))
    assert.isTrue(Result.isFailure(Schema.decodeUnknownResult(empty.codec)({ a: 1 })))
    const bounded = objectOf({ a: { type: "array", items: { type: "string" }, uniqueItems: true } })
    assert.strictEqual(failureOf(StrictSchema.fromJsonSchema(bounded, { exact: true })).path, "/properties/a")
  })

  it.effect("needs no services to decode", () =>
    Effect.gen(function* () {
      const strict = yield* Effect.fromResult(
        StrictSchema.fromJsonSchema(objectOf({ a: { type: "string" } }))
      )
      assert.deepStrictEqual(yield* Schema.decodeUnknownEffect(strict.codec)({ a: null }), {})
    })
  )
})
