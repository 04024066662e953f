// SPDX-License-Identifier: Apache-2.0
//
// The machine of a recording, as `show` prints it.

import RangelandReplay

extension RecordedMachine {
  /// For a table: what is known.
  var rows: [(String, String)] {
    var hardware: [String] = []
    if let processors { hardware.append("\(processors) processors") }
    if !processor.isEmpty { hardware.append(processor) }
    if let memory { hardware.append("\(memory >> 20) MiB") }
    var system: [String] = []
    if !kernel.isEmpty { system.append("Linux \(kernel)") }
    if let overcommit { system.append("overcommit \(overcommit)") }
    if !hugePages.isEmpty { system.append("huge pages \(hugePages)") }
    if let mapCountLimit { system.append("at most \(mapCountLimit) mappings") }
    let limits = [
      ("address space", addressSpaceLimit), ("data", dataLimit), ("stack", stackLimit),
      ("locked", lockedLimit),
    ].compactMap { name, limit in limit.text.map { "\(name) \($0)" } }
    return [
      ("machine", hardware.joined(separator: ", ")), ("kernel", system.joined(separator: ", ")),
      ("limits", limits.joined(separator: ", ")),
    ].filter { !$0.1.isEmpty }
  }

  /// For JSON: null where nothing is known.
  var fields: KeyValuePairs<String, JSON> {
    [
      "processor": processor.isEmpty ? .null : .string(processor),
      "processors": processors.map { .count($0) } ?? .null,
      "memory": memory.map { .unsigned($0) } ?? .null,
      "kernel": kernel.isEmpty ? .null : .string(kernel),
      "overcommit": overcommit.map { .count($0) } ?? .null,
      "hugePages": hugePages.isEmpty ? .null : .string(hugePages),
      "mapCountLimit": mapCountLimit.map { .count($0) } ?? .null,
      "addressSpaceLimit": addressSpaceLimit.json, "dataLimit": dataLimit.json,
      "stackLimit": stackLimit.json, "lockedLimit": lockedLimit.json,
    ]
  }
}

extension RecordedMachine.Limit {
  fileprivate var text: String? {
    switch self {
    case .unknown: nil
    case .unlimited: "unlimited"
    case .bytes(let bytes): bytes % 1024 == 0 ? "\(bytes >> 10) KiB" : "\(bytes) bytes"
    }
  }

  fileprivate var json: JSON {
    switch self {
    case .unknown: .null
    case .unlimited: .string("unlimited")
    case .bytes(let bytes): .unsigned(bytes)
    }
  }
}
