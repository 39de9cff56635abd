# SPDX-License-Identifier: GPL-2.0-or-later
"""qapi-events.[ch]: one function for each event, which builds its data and emits it."""

from output import banner


def _prototype(event):
    params = []
    for m in event.arg.members if event.arg else []:
        if m.has_flag:
            params.append('bool has_%s' % m.c_name)
        const = 'const ' if m.type.by_pointer else ''
        params.append('%s%s%s' % (const, m.type.c_type, m.c_name))
    return 'void qapi_event_send_%s(%s)' % (event.name.lower(),
                                            ', '.join(params) or 'void')


def header(schema):
    out = [banner('The QMP events.', 'QAPI_EVENTS_H')]
    out.append('#include "qapi/qapi-types.h"\n')
    out.append('/* Who carries events to the clients; set by the monitor. Takes over '
               '@data (may be\n * NULL). Without it events are dropped. */')
    out.append('typedef void QapiEventEmit(const char *name, JsonValue *data);')
    out.append('extern QapiEventEmit *qapi_event_emit;\n')
    out += [_prototype(event) + ';' for event in schema.events]
    out.append('\n#endif\n')
    return '\n'.join(out)


def source(schema):
    out = [banner('The QMP events.')]
    out.append('#include "qapi/qapi-events.h"\n#include "qapi/qapi-visit.h"\n')
    out.append('QapiEventEmit *qapi_event_emit;\n')
    for event in schema.events:
        out.append(_prototype(event) + '\n{')
        out.append('    if (!qapi_event_emit) {\n        return;\n    }')
        if not event.arg:
            out.append('    qapi_event_emit("%s", NULL);\n}\n' % event.name)
            continue
        out.append('    %s data = { 0 };\n' % event.arg.c_name)
        for m in event.arg.members:
            if m.has_flag:
                out.append('    data.has_%s = has_%s;' % (m.c_name, m.c_name))
            cast = '(%s)' % m.type.c_type.strip() if m.type.by_pointer else ''
            out.append('    data.%s = %s%s;' % (m.c_name, cast, m.c_name))
        out.append('    qapi_event_emit("%s", qapi_%s_to_json(&data));\n}\n' % (
            event.name, event.arg.c_name))
    return '\n'.join(out)
