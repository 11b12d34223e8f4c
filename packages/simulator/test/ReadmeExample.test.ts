import { assert, it } from "@effect/vitest"
import { readFileSync } from "node:fs"

const read = (path: string) => readFileSync(new URL(path, import.meta.url), "utf8")

it("the README's vitest example is the one that runs", () => {
  assert.include(read("../README.md"), read("Readme.test.ts"))
})
