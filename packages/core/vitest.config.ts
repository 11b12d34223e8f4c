import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
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
