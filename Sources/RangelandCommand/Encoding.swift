// SPDX-License-Identifier: Apache-2.0
//
// JSON as every `--json` prints it: sorted keys, so that the order is fixed.

import Foundation

/// A report as JSON text.
func encoded(_ report: some Encodable) throws -> String {
  let encoder = JSONEncoder()
  encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
  return String(decoding: try encoder.encode(report), as: UTF8.self) + "\n"
}
