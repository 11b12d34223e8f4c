import { configDefaults, defineConfig } from "vitest/config"
import { whyNot } from "./test/live/environment.ts"

// Left out, not skipped: a test that did not run is not counted at all.
const reason = whyNot()
if (reason !== undefined) console.log(`The live suite (test/live) is left out: ${reason}.`)

export default defineConfig({
  test: {
    exclude: [...configDefaults.exclude, ...(reason === undefined ? [] : ["test/live/**"])],
    // In CI, and with `--coverage`: it makes the property tests several times slower.
    coverage: {
      enabled: process.env["CI"] === "true",
      include: ["src/**/*.ts"],
      reporter: ["text-summary", "json-summary"],
      reportsDirectory: ".reports/coverage",
      thresholds: { statements: 90 }
    }
  }
})
