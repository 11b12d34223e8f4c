/**
 * Makes `test/support/openapi.json` out of OpenAI's published description: the schemas of what the simulator answers,
 * without their prose. Run: `node scripts/openapi.ts path/to/openapi.json`.
 */
import { readFileSync, writeFileSync } from "node:fs"
import { format } from "node:util"

type Json = null | boolean | number | string | ReadonlyArray<Json> | { readonly [key: string]: Json }
type Fields = { readonly [key: string]: Json }

const isFields = (json: Json | undefined): json is Fields =>
  typeof json === "object" && json !== null && !Array.isArray(json)
const fields = (json: Json | undefined): Fields => (isFields(json) ? json : {})

const [source = ""] = process.argv.slice(2)
const description = fields(JSON.parse(readFileSync(source, "utf8")))
const components = fields(fields(description["components"])["schemas"])

/** What describes to people, and what no validator reads. */
const prose = new Set([
  "description",
  "title",
  "example",
  "examples",
  "deprecated",
  "discriminator",
  "externalDocs",
  "default",
  "nullable"
])
/** Below these, keys are names that the API gives. */
const named = new Set(["properties", "patternProperties"])

const bare = (json: Json, names = false): Json => {
  if (Array.isArray(json)) return json.map((item: Json) => bare(item))
  if (!isFields(json)) return json
  if (!names && json["nullable"] === true) {
    // Of OpenAPI 3.0; in 3.1 it has no meaning.
    const { nullable: _, ...rest } = json
    return { anyOf: [bare(rest), { type: "null" }] }
  }
  return Object.fromEntries(
    Object.entries(json).flatMap(([key, value]) =>
      !names && (prose.has(key) || key.startsWith("x-")) ? [] : [[key, bare(value, !names && named.has(key))]]
    )
  )
}

const simulated =
  /^\/(audio\/(speech|transcriptions|translations)|batches|chat\/completions$|conversations|embeddings|files|images|models|moderations|responses|uploads|vector_stores)/

const operations: Record<string, Json> = {}
const wanted = new Set<string>()
const refer = (json: Json): void => {
  if (Array.isArray(json)) for (const item of json) refer(item)
  if (!isFields(json)) return
  const { $ref } = json
  if (typeof $ref === "string") {
    const name = $ref.split("/").at(-1) ?? ""
    if (!wanted.has(name)) {
      wanted.add(name)
      refer(bare(components[name] ?? {}))
    }
  }
  for (const value of Object.values(json)) refer(value)
}

for (const [path, methods] of Object.entries(fields(description["paths"]))) {
  for (const [method, operation] of Object.entries(fields(methods))) {
    // A path with a query is the same operation again.
    if (path.includes("?") || !["get", "post", "delete"].includes(method)) continue
    const answers = Object.entries(fields(fields(operation)["responses"])).filter(([status]) =>
      status.startsWith("2")
    )
    const content = fields(fields(answers[0]?.[1])["content"])
    const schemas: Record<string, Json> = {}
    if (simulated.test(path)) {
      for (const [type, media] of Object.entries(content)) {
        const schema = bare(fields(media)["schema"] ?? {})
        refer(schema)
        schemas[type] = schema
      }
    }
    operations[`${method.toUpperCase()} ${path}`] = schemas
  }
}

const schemas = Object.fromEntries([...wanted].toSorted().map((name) => [name, bare(components[name] ?? {})]))
const text = JSON.stringify({ version: fields(description["info"])["version"] ?? null, operations, schemas })
writeFileSync(new URL("../test/support/openapi.json", import.meta.url), `${text}\n`)
process.stdout.write(
  format("%d operations, %d schemas, %d bytes\n", Object.keys(operations).length, wanted.size, text.length)
)
