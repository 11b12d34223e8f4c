import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as AdminRoutes from "@llm/api/AdminRoutes"
import * as ApiDescription from "@llm/api/ApiDescription"
import * as Endpoints from "@llm/api/Endpoints"
import * as Json from "./support/Json.ts"
import * as RunningGateway from "./support/RunningGateway.ts"

/** Every object inside of a value, with its place. */
const objectsIn = (value: unknown, place = "#"): ReadonlyArray<readonly [string, object]> => {
  if (Array.isArray(value)) return value.flatMap((item, index) => objectsIn(item, `${place}/${index}`))
  if (!Predicate.isObject(value)) return []
  return [
    [place, value] as const,
    ...Object.entries(value).flatMap(([name, inner]) => objectsIn(inner, `${place}/${name}`))
  ]
}

describe("the description", () => {
  it.each([true, false])(
    "is OpenAPI 3.1 as far as its rules can be broken by a table; admin: %s",
    (admin) => {
      const api = ApiDescription.make(admin)
      assert.strictEqual(Json.at(api, "openapi"), "3.1.0")
      for (const [place, object] of objectsIn(api)) {
        if (!("$ref" in object)) continue
        assert.deepStrictEqual(Object.keys(object), ["$ref"], place)
        assert.isDefined(
          Json.at(api, ...String(object.$ref).slice(2).split("/")),
          `${place}: ${String(object.$ref)}`
        )
      }
      const ids: Array<unknown> = []
      const schemes = Object.keys(Json.at(api, "components", "securitySchemes") ?? {})
      for (const [path, methods] of Object.entries(Json.at(api, "paths") ?? {})) {
        assert.match(path, /^\//u)
        for (const [method, operation] of Object.entries(methods ?? {})) {
          assert.match(method, /^(?:get|put|post|delete|patch)$/u)
          ids.push(Json.at(operation, "operationId"))
          const parameters: unknown = Json.at(operation, "parameters") ?? []
          const named = objectsIn(parameters)
            .map(([, parameter]) => parameter)
            .filter((parameter) => Json.at(parameter, "in") === "path")
            .map((parameter) => Json.at(parameter, "name"))
          assert.deepStrictEqual(
            named,
            [...path.matchAll(/\{(\w+)\}/gu)].map(([, name]) => name),
            path
          )
          for (const [status, reply] of Object.entries(Json.at(operation, "responses") ?? {})) {
            assert.match(status, /^(?:[1-5]\d\d|[1-5]XX|default)$/u)
            assert.isTrue(Predicate.hasProperty(reply, "$ref") || Predicate.hasProperty(reply, "description"))
          }
          const security: unknown = Json.at(operation, "security")
          for (const [, need] of objectsIn(security))
            for (const name of Object.keys(need)) assert.include(schemes, name)
        }
      }
      assert.strictEqual(new Set(ids).size, ids.length)
    }
  )

  it("has every endpoint by OpenAI's name, and every admin route", () => {
    const api = ApiDescription.make(true)
    for (const { method, operation, path } of Endpoints.all) {
      assert.strictEqual(Json.at(api, "paths", `/v1${path}`, method, "operationId"), operation)
      const headers = Json.at(api, "paths", `/v1${path}`, method, "responses", "200", "headers")
      assert.containsAllKeys(headers, ["x-llm-cost", "x-llm-attempts", "x-request-id"])
    }
    for (const { method, path } of AdminRoutes.routes) {
      const described = path.replaceAll(/:(\w+)/gu, "{$1}")
      assert.isDefined(Json.at(api, "paths", described, method.toLowerCase()), path)
    }
    assert.notInclude(JSON.stringify(ApiDescription.make(false)), "/admin/")
  })
})

describe("the reference page", () => {
  it.live("is served beside its description, and needs nothing from elsewhere", () =>
    Effect.gen(function* () {
      const { origin } = yield* RunningGateway.make()
      const [json, html] = yield* Effect.promise(() =>
        Promise.all(["/openapi.json", "/docs"].map((path) => fetch(`${origin}${path}`)))
      )
      const text = yield* Effect.promise(async () => (await json?.text()) ?? "")
      assert.strictEqual(text, JSON.stringify(ApiDescription.make(false)))
      const page = yield* Effect.promise(async () => (await html?.text()) ?? "")
      assert.match(html?.headers.get("content-type") ?? "", /^text\/html/u)
      assert.include(html?.headers.get("content-security-policy") ?? "", "default-src 'none'")
      assert.notMatch(page, /<(?:script|link|img|iframe)[^>]*(?:src|href)=/u)
    })
  )
})
