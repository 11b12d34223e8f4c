/**
 * What a program weighs as one file, minified and after gzip: also what it would load later.
 *
 * A value that is computed at the top of a module stays in every bundle with that module, used or not, unless it is
 * marked `@__PURE__`: where a bound breaks, that is mostly why.
 */
import { fileURLToPath } from "node:url"
import { gzipSync } from "node:zlib"
import { assert, beforeAll, describe, it } from "@effect/vitest"
import { build } from "esbuild"

interface Bundle {
  /** Bytes after gzip. */
  readonly size: number
  /** Files of which something is left, as paths. */
  readonly files: ReadonlyArray<string>
}

const bundle = async (program: "Sdk" | "Readme" | "Policies"): Promise<Bundle> => {
  const { metafile, outputFiles, warnings } = await build({
    entryPoints: [fileURLToPath(new URL(`support/programs/${program}.ts`, import.meta.url))],
    bundle: true,
    minify: true,
    write: false,
    metafile: true,
    outdir: "bundle",
    format: "esm",
    platform: "node",
    target: "node22",
    logLevel: "silent"
  })
  assert.deepStrictEqual(warnings, [])
  const contents = Buffer.concat(outputFiles.map((file) => file.contents))
  const inputs = Object.values(metafile.outputs).flatMap((output) => Object.entries(output.inputs))
  return {
    size: gzipSync(contents, { level: 9 }).byteLength,
    files: inputs.flatMap(([path, { bytesInOutput }]) => (bytesInOutput === 0 ? [] : [path]))
  }
}

/** Bytes that may be added to the official SDK's. */
const most = 150_000

describe("a bundle", () => {
  let sdk: Bundle
  let readme: Bundle
  let policies: Bundle
  beforeAll(async () => {
    ;[sdk, readme, policies] = await Promise.all([bundle("Sdk"), bundle("Readme"), bundle("Policies")])
  }, 60_000)

  it("of the README's program stays within its bound", () => {
    assert.isAtMost(readme.size - sdk.size, most)
  })

  it("with every policy on stays within its bound", () => {
    assert.isAtMost(policies.size - sdk.size, most)
  })

  it("holds the official SDK, which is loaded later", () => {
    for (const { files } of [sdk, readme, policies]) {
      assert.isTrue(files.some((path) => path.endsWith("/openai/client.mjs")))
    }
  })

  it.each([
    ["/gpt-tokenizer/", "counts no tokens"],
    ["/internal/priceData.ts", "prices nothing"],
    ["/internal/tokenBucket.ts", "limits no rate"],
    ["/internal/rateLimitScript.ts", "limits no rate"],
    ["/internal/eventLog.ts", "caches nothing"],
    ["/undici/", "did not ask for another transport"]
  ])("has nothing of %s in a program that %s", (path) => {
    assert.deepStrictEqual(
      readme.files.filter((file) => file.includes(path)),
      []
    )
  })

  it.each(["/gpt-tokenizer/", "/internal/rateLimitScript.ts", "/internal/eventLog.ts", "/undici/"])(
    "has nothing of %s with the policies of one process",
    (path) => {
      assert.deepStrictEqual(
        policies.files.filter((file) => file.includes(path)),
        []
      )
    }
  )
})
