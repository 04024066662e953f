// SPDX-License-Identifier: Apache-2.0
//
// Call chains for people.

extension CallChains {
  /// `frames` without those of the kernel that every chain has: the tracepoint's own, and the way into the kernel.
  public static func telling(_ frames: [Frame]) -> [Frame] {
    frames.filter { frame in
      guard frame.isKernel else { return true }
      return !frame.function.hasPrefix("__mmap_lock_do_trace_")
        && !waysIn.contains(frame.function)
    }
  }

  private static let waysIn: Set<String> = [
    "do_syscall_64", "x64_sys_call", "entry_SYSCALL_64_after_hwframe", "exc_page_fault",
    "asm_exc_page_fault",
  ]

  /// The innermost of the program's functions in a line, `munmap < free < main`; the kernel's where there is none of
  /// the program's, or where `withKernel`.
  ///
  /// Short names (`Frame.shortName`), of unknown functions in a row one; `limit` names at most, and fewer where they
  /// are long: about 200 characters.
  public static func line(_ frames: [Frame], withKernel: Bool = false, limit: Int = 6) -> String {
    if frames.isEmpty { return noChain }
    let telling = telling(frames)
    let own = telling.filter { !$0.isKernel }
    var names: [String] = []
    for frame in withKernel || own.isEmpty ? telling : own {
      let name = frame.shortName
      if name != unknown || names.last != unknown { names.append(name) }
    }
    var text = ""
    for (index, name) in names.enumerated() {
      if index == limit || text.count + name.count > lineLimit, index > 0 { return text + " < ..." }
      text += (index == 0 ? "" : " < ") + name
    }
    return text
  }

  /// What stands for a chain that is not recorded.
  public static let noChain = "no call chain"
  private static let lineLimit = 200
}

extension CallChains.Frame {
  /// `function (module)`.
  public var described: String { module.isEmpty ? function : "\(function) (\(module))" }

  /// The function without what makes names long: parameters and template arguments (C++), the version of a symbol of a
  /// library, the middle of what is longer than 60 characters.
  var shortName: String {
    var name = function[...]
    for suffix in [" const", " volatile", " &", " &&"] where name.hasSuffix(suffix) {
      name = name.dropLast(suffix.count)
    }
    // A conversion's name is a type, which may have parentheses of its own.
    if !name.contains("operator ") { name = Self.withoutParameters(name) }
    let whole = Self.withoutArguments(Self.withoutVersion(name))
    if whole.count <= 60 { return whole }
    return whole.prefix(28) + "..." + whole.suffix(29)
  }

  /// Without the last pair of parentheses, which stands at the end.
  private static func withoutParameters(_ name: Substring) -> Substring {
    guard let open = name.openingOfLastParentheses, open > name.startIndex,
      !name[..<open].hasSuffix("operator")
    else { return name }
    return name[..<open]
  }

  /// Without `@GLIBC_2.34` and `@@GLIBC_2.34`; other names have that sign too (scopes of packages).
  private static func withoutVersion(_ name: Substring) -> Substring {
    guard let sign = name.firstIndex(of: "@"), sign > name.startIndex,
      name[sign...].allSatisfy({ $0.isLetter || $0.isNumber || "@_.".contains($0) })
    else { return name }
    return name[..<sign]
  }

  /// With `<...>` for template arguments. What is no such list stays: operators, a name that begins with one (Rust's).
  private static func withoutArguments(_ name: Substring) -> String {
    var result = ""
    var depth = 0
    var previous: Character = " "
    for character in name {
      let isOperator = result.hasSuffix("operator") || result.hasSuffix("operator<")
      if character == "<", depth > 0 || !(isOperator || result.isEmpty) {
        if depth == 0 { result += "<...>" }
        depth += 1
      } else if character == ">", depth > 0, previous != "-" {
        depth -= 1
      } else if depth == 0 {
        result.append(character)
      }
      previous = character
    }
    return depth == 0 ? result : String(name)
  }
}
