"""Templates in the manner of Ollama's, and what they print of a conversation: the system message, two exchanges."""

ONCE = {  # for a whole conversation
    "roles": (
        "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n",
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n"
        "<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\n",
    ),
    "the last one": (
        """{{- if .System }}<|im_start|>system
{{ .System }}<|im_end|>
{{ end }}
{{- /* turns */ -}}
{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 -}}
{{- if eq .Role "user" }}<|im_start|>user
{{ .Content }}<|im_end|>
{{ else if eq .Role "assistant" }}<|im_start|>assistant
{{ .Content }}{{ if not $last }}<|im_end|>
{{ end }}
{{- end }}
{{- if and (ne .Role "assistant") $last }}<|im_start|>assistant
{{ end }}
{{- end }}""",
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n"
        "<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\n",
    ),
    "variables": (
        '{{ $told := "" }}{{ range .Messages }}{{ if eq .Role "system" }}'
        '{{ if not $told }}{{ $told = .Content }}{{ else }}{{ $told = printf "%s\\n%s" $told .Content }}{{ end }}'
        '{{ else if eq .Role "user" }}[INST] {{ if $told }}{{ $told }}\n\n{{ $told = "" }}{{ end }}'
        "{{ .Content }}[/INST]"
        "{{ else }} {{ .Content }}</s>{{ end }}{{ end }}",
        "[INST] S\n\nQ1[/INST] A1</s>[INST] Q2[/INST]",
    ),
    "with, index, pipes": (
        '{{ with .System }}<{{ . }}>{{ end }}{{ (index .Messages 1).Content | printf "%s!" }}'
        '{{ range .Messages }}{{ if or (eq .Role "tool" "system") (lt (len .Content) 2) }}{{ continue }}{{ end }}'
        '|{{ .Role }}: {{ .Content }}{{ end }}{{ if false }}x{{ else if `a` }}{{ "\\t-" }}{{ end }}',
        "<S>Q1!|user: Q1|assistant: A1|user: Q2\t-",
    ),
}
EACH = {  # once for each exchange
    "with an end": (
        "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}"
        "{{ if .Prompt }}<|im_start|>user\n{{ .Prompt }}<|im_end|>\n{{ end }}"
        "<|im_start|>assistant\n{{ .Response }}<|im_end|>\n",
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n"
        "<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\n",
    ),
    "no place for a response": (
        "{{ if .System }}{{ .System }}\n{{ end }}USER: {{ .Prompt }}\nASSISTANT: ",
        "S\nUSER: Q1\nASSISTANT: A1USER: Q2\nASSISTANT: ",
    ),
}
TOOLS = """{{- if or .System .Tools }}<|im_start|>system
{{- if .System }}
{{ .System }}
{{- end }}
{{- if .Tools }}
Tools:
{{- range .Tools }}
{"type": "function", "function": {{ .Function }}}
{{- end }}
{{- end }}<|im_end|>
{{ end }}
{{- range .Messages }}
{{- if eq .Role "user" }}<|im_start|>user
{{ .Content }}<|im_end|>
{{ else if eq .Role "assistant" }}<|im_start|>assistant
{{ if .Content }}{{ .Content }}
{{- end }}
{{- range .ToolCalls }}<tool_call>
{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}
</tool_call>
{{- end }}<|im_end|>
{{ else if eq .Role "tool" }}<|im_start|>user
<tool_response>
{{ .Content }}
</tool_response><|im_end|>
{{ end }}
{{- end }}<|im_start|>assistant
"""
